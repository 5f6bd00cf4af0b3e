# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The score detector: a small network that finds objects in the picture and the calibrated score.

The log-odds of the calibrated probability tell what is strange, the picture what belongs together
and where it ends. The network is U-shaped; its output at 4 pixels tells for each place how likely
it is the centre of an unknown object and how far away the object's sides are (after CenterNet,
arXiv 1904.07850, and FCOS, arXiv 1904.01355).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.checkpoints.loading import load_exactly
from ood_perception.masks.boxes import Boxes, clean_boxes, empty_boxes, suppress, waits
from ood_perception.masks.layers import fuse_conv_bn, log_odds
from ood_perception.models.detection_head import RARE, STRIDE, centres_and_sides
from ood_perception.models.unet import SmallNetwork, UNetwork, conv_bn_relu

SHORT_SIDE = 540
"""Shorter side in pixels above which a frame is reduced, so the work does not grow with it."""
FLOOR = 0.065
"""Probability of the network alone below which a box is none."""
IOU, CONTAINMENT = 0.5, 0.8
"""Of two boxes that overlap or hold each other more than this, the better one stays."""
WEIGHTS = 'package:light_prompts.safetensors'


class ScoreDetector(UNetwork, SmallNetwork):
    """
    The network: (B, 4, h, w) of `detector_input` -> (B, 5, h / 4, w / 4).

    Channel 0 is the logit of an object's centre; channels 1-4 are the distances to the left, top,
    right and bottom side in pixels, positive.

    Args:
        widths: channels at 1/4, 1/8, 1/16 and 1/32 of the input's size.

    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64)) -> None:
        super().__init__(conv_bn_relu(4, widths[0], STRIDE, STRIDE), widths)
        self.head = nn.Conv2d(widths[0], 5, 1)
        assert self.head.bias is not None
        self.head.bias.data = torch.tensor([RARE, 0.0, 0.0, 0.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        """Run the network; see the class."""
        return centres_and_sides(self.head(self.maps(x)))


def detector_input(images: Tensor, probability: Tensor) -> Tensor:
    """
    Input of the network.

    Args:
        images: uint8 (B, 3, H, W) RGB.
        probability: float32 (B, H, W), 0..1, the calibrated score; NaN counts as 0.

    Returns:
        float32 (B, 4, h, w): the colours within -2..2 and log(p / (1 - p)) / 4, reduced where the
        shorter side is above `SHORT_SIDE`; the last row and column are repeated up to a whole
        `STRIDE`.

    """
    planes = torch.cat([images.float() / 64 - 2, log_odds(probability)[:, None]], 1)
    scale = reduction(*probability.shape[1:])
    if scale > 1:
        size = [max(1, round(side / scale)) for side in probability.shape[1:]]
        planes = F.interpolate(planes, size, mode='bilinear', antialias=True)
    below, beside = (-side % STRIDE for side in planes.shape[2:])
    return F.pad(planes, (0, beside, 0, below), mode='replicate')


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
    peaks = torch.where(heat == F.max_pool2d(heat, 3, 1, 1), heat, 0.0)
    height, width = heat.shape[2:]
    scores, place = peaks.flatten(1).topk(min(limit, height * width), dim=1)
    sides = output[:, 1:].flatten(2).gather(2, place[:, None].expand(-1, 4, -1))
    x = (place % width).float() * STRIDE + STRIDE / 2
    y = (place // width).float() * STRIDE + STRIDE / 2
    left, top, right, bottom = sides.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], -1), scores


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


def reduction(height: int, width: int) -> float:
    """Pixels of a frame for one of `detector_input`'s."""
    return max(1.0, min(height, width) / SHORT_SIDE)


def largest_inside(probability: Tensor, boxes: Tensor) -> Tensor:
    """
    Largest probability in each box, to the nearest `STRIDE` pixels.

    Args:
        probability: float32 (B, H, W), 0..1; NaN counts as 0.
        boxes: float32 (B, K, 4) XYXY pixels.

    Returns:
        float32 (B, K), 0..1; 0 for an empty box.

    """
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
        return not waits(probability) and not bool(probability.amax() >= self.seed)

    def read(self, output: Tensor, probability: Tensor, scale: float = 1.0) -> Boxes:
        """Boxes of a detector's output (B, 5, h, w), see `propose`, for maps (B, H, W)."""
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


class ScoreDetectorPrompts(DetectorPrompts):
    """
    Boxes of `ScoreDetector`, for any score; reads picture and probability.

    Args:
        weights: '' for a random network, ``package:FILE``, or a path of a safetensors file.
        options: of `DetectorPrompts`.

    Raises:
        OSError: there is no such weight file.
        ValueError: an option out of its range, or weights that do not fit.

    """

    def __init__(self, weights: str = WEIGHTS, **options: Any) -> None:
        super().__init__(**options)
        network = ScoreDetector()
        if weights:
            load_exactly(network, weights)
        self.network = fuse_conv_bn(network)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor, score: Tensor, probability: Tensor) -> Boxes:
        """Propose boxes; see `base.PromptModel`."""
        if self.nothing_in(probability):
            return empty_boxes(len(probability), self.slots)
        return self.propose(images, probability)

    @torch.no_grad()
    def propose(self, images: Tensor, probability: Tensor) -> Boxes:
        """Run the network, also where no frame reaches the seed: the boxes are dropped then."""
        output = self.network(detector_input(images, probability))
        return self.read(output, probability, reduction(*probability.shape[1:]))
