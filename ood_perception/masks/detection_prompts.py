# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Boxes of a detector's output: of the detection head, which runs inside the segmentor's engine.

`score_detector` reads its own network's output in the same way.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.checkpoints.loading import load_exactly
from ood_perception.masks.boxes import Boxes, clean_boxes, empty_boxes, suppress, waits
from ood_perception.models.detection_head import STRIDE, DetectionHead
from ood_perception.models.int8 import shipped_ranges

FLOOR = 0.065
"""Probability of the network alone below which a box is none."""
IOU, CONTAINMENT = 0.5, 0.8
"""Of two boxes that overlap or hold each other more than this, the better one stays."""
WEIGHTS = 'package:detection_head.safetensors'


def decode(output: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """
    Read boxes off the network's output.

    Args:
        output: float32 (B, 5, h, w) of `ScoreDetector`.
        limit: most boxes of each frame.

    Returns:
        boxes float32 (B, M, 4) XYXY in pixels of the network's input and scores (B, M), 0..1, best
        first; M = min(limit, h * w). A place that is no local maximum (3x3) scores 0.

    """
    heat = output[:, :1].sigmoid()
    peaks = torch.where(heat == _largest_around(heat), heat, 0.0)
    height, width = heat.shape[2:]
    scores, place = peaks.flatten(1).topk(min(limit, height * width), dim=1)
    sides = output[:, 1:].flatten(2).gather(2, place[:, None].expand(-1, 4, -1))
    x = (place % width).float() * STRIDE + STRIDE / 2
    y = (place // width).float() * STRIDE + STRIDE / 2
    left, top, right, bottom = sides.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], -1), scores


def _largest_around(maps: Tensor) -> Tensor:
    """Largest value of each pixel and its neighbours, float32 (B, 1, h, w); quicker by OpenCV."""
    if waits(maps.device):
        return F.max_pool2d(maps, 3, 1, 1)
    found = [cv2.dilate(plane, np.ones((3, 3), np.uint8)) for plane in maps[:, 0].numpy()]
    return torch.from_numpy(np.stack(found))[:, None]


def propose(
    output: Tensor,
    height: int,
    width: int,
    slots: int,
    limit: int,
    threshold: float = 0.0,
    scale: float = 1.0,
) -> Boxes:
    """
    Boxes of a frame from the network's output, without those that overlap a better one.

    Args:
        output: float32 (B, 5, h, w) of `ScoreDetector` or `DetectionHead`.
        height: of the frame in pixels.
        width: of the frame in pixels.
        slots: K, boxes kept of each frame; their scores are the network's.
        limit: most boxes of each frame that are looked at.
        threshold: boxes that score less are dropped.
        scale: pixels of the frame for one of the network's input.

    """
    boxes, scores = decode(output, limit)
    boxes, valid = clean_boxes(boxes * scale, height, width)
    scores = torch.where(valid & (scores >= threshold), scores, 0.0)
    return suppress(boxes, scores, slots, IOU, CONTAINMENT)


def largest_inside(probability: Tensor, boxes: Tensor) -> Tensor:
    """
    Largest probability in each box, to the nearest `STRIDE` pixels.

    Args:
        probability: float32 (B, H, W), 0..1; NaN counts as 0.
        boxes: float32 (B, K, 4) XYXY pixels.

    Returns:
        float32 (B, K), 0..1; 0 for an empty box.

    """
    if not waits(boxes.device):
        maps = torch.nan_to_num(probability).numpy()
        first, last = (boxes / STRIDE)[..., :2].floor(), (boxes / STRIDE)[..., 2:].ceil()
        places = (torch.cat([first, last], 2).int() * STRIDE).tolist()
        found = torch.zeros(boxes.shape[:2])
        for i, row in enumerate(places):
            for j, (x1, y1, x2, y2) in enumerate(row):
                found[i, j] = float(maps[i, y1:y2, x1:x2].max(initial=0.0))
        return found
    cells = F.max_pool2d(torch.nan_to_num(probability), STRIDE, STRIDE, ceil_mode=True)
    x1, y1, x2, y2 = (boxes / STRIDE)[..., None].unbind(2)
    y = torch.arange(cells.shape[1], device=cells.device)
    x = torch.arange(cells.shape[2], device=cells.device)
    rows = (y >= y1.floor()) & (y < y2)
    columns = (x >= x1.floor()) & (x < x2)
    inside = rows[..., :, None] & columns[..., None, :]
    return torch.where(inside, cells[:, None], 0.0).flatten(2).amax(2)


class DetectorPrompts(nn.Module):
    """
    Boxes of a detector's output and the probability, see `base.PromptModel`.

    A box's confidence is 1 - (1 - network) (1 - peak): the network knows what objects look like in
    the map, and the largest probability in the box tells how strange the thing itself is.

    Args:
        slots: K, most boxes of each frame.
        threshold: boxes of a lower confidence 0..1 are dropped.
        seed: a frame whose map stays below this probability 0..1 has no boxes.

    Raises:
        ValueError: an option out of its range.

    """

    def __init__(self, slots: int = 16, threshold: float = 0.6, seed: float = 0.3) -> None:
        super().__init__()
        if slots < 1:
            raise ValueError(f'slots: expected at least 1, got {slots}')
        for name, value in (('threshold', threshold), ('seed', seed)):
            if not 0 <= value <= 1:
                raise ValueError(f'{name}: expected 0..1, got {value}')
        self.slots, self.threshold, self.seed = slots, threshold, seed

    def nothing_in(self, probability: Tensor) -> bool:
        """Whether the host can tell that no frame reaches the seed, which saves it the rest."""
        return not waits(probability.device) and not bool(probability.amax() >= self.seed)

    def read(self, output: Tensor, probability: Tensor, scale: float = 1.0) -> Boxes:
        """Boxes of a detector's output (B, 5, h, w), see `propose`, for maps (B, H, W)."""
        if self.nothing_in(probability):
            return empty_boxes(len(probability), self.slots)
        height, width = probability.shape[1:]
        floor = min(FLOOR, self.threshold)
        found = propose(output, height, width, self.slots, 4 * self.slots, floor, scale)
        peak = largest_inside(probability, found.boxes)
        valid = found.valid & (probability.amax((1, 2)) >= self.seed)[:, None]
        either = 1 - (1 - found.confidences) * (1 - peak)
        valid &= either >= self.threshold
        confidences, order = (either * valid).sort(dim=1, descending=True, stable=True)
        valid = valid.gather(1, order)
        boxes = found.boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return Boxes(torch.where(valid[..., None], boxes, 0.0), confidences, valid)


class DetectionHeadPrompts(DetectorPrompts):
    """
    Boxes of `DetectionHead`, see `base.PromptModel`; reads probability and detections.

    Args:
        weights: of the head: '' for random ones, ``package:FILE``, or a path of a safetensors
            file.
        options: of `DetectorPrompts`.

    Attributes:
        head: to be made a part of the segmentor, see `building.detecting`.

    Raises:
        OSError: there is no such weight file.
        ValueError: an option out of its range, or weights that do not fit.

    """

    def __init__(self, weights: str = WEIGHTS, **options: Any) -> None:
        super().__init__(**options)
        self.head = DetectionHead()
        if weights:
            load_exactly(self.head, weights)
        self.head.ranges = shipped_ranges(weights)
        self.eval()

    @torch.no_grad()
    def forward(
        self, images: Tensor, score: Tensor, probability: Tensor, detections: Tensor | None = None
    ) -> Boxes:
        """Propose boxes; see `base.PromptModel`. ValueError without detections."""
        if detections is None:
            raise ValueError('the segmentor has no detection head: build it with the pipeline')
        return self.read(detections.float(), probability)
