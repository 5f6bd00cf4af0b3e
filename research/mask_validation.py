# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""How many objects the masks stage finds, and how well it outlines them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ood_perception.masks.base import MaskModel, PromptModel
from ood_perception.masks.boxes import overlaps
from ood_perception.masks.fusion import Instances, fuse
from research.score_scenes import Scene

SMALL = 32**2
"""Pixels: an object of fewer is small, as COCO has it."""
FOUND = 0.25
"""sIoU from which an object is found, the least that SegmentMeIfYouCan counts by."""
LEAST_AREA = 40
"""Pixels below which an object is not asked for; boxes and masks on it count as false alarms."""


@dataclass
class Tally:
    """
    Counts over frames; `add` frames, then read `numbers`.

    A box or an instance fits an object when their overlap (of boxes, of masks) is at least
    `least`; each fits one object at most, the largest overlaps first. An object is found, however
    well it is outlined, from an sIoU of `FOUND`.
    """

    least: float = 0.5
    objects: int = 0
    boxes: int = 0
    boxed: int = 0
    small: int = 0
    small_boxed: int = 0
    small_outlined: int = 0
    found: int = 0
    small_found: int = 0
    hits: int = 0
    alarms: int = 0
    matched: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)

    def add(self, truth: np.ndarray, found: Instances, boxes: Tensor, ignore: np.ndarray) -> None:
        """
        Count one frame.

        Args:
            truth: uint8 (H, W), 0 = known, 1..N = objects.
            found: instances of the frame.
            boxes: float32 (M, 4) XYXY pixels, the prompts.
            ignore: bool (H, W), pixels that belong to no instance whatever was found.

        """
        ids, areas = np.unique(truth[truth > 0], return_counts=True)
        ids, areas = ids[areas >= LEAST_AREA], areas[areas >= LEAST_AREA]
        masks = [truth == index for index in ids]
        labels = np.where(ignore, 0, found.labels.cpu().numpy())
        instances = [labels == index for index in found.ids.tolist()]
        instances = [mask for mask in instances if mask.any()]
        iou = mask_overlaps(masks, instances)
        pairs = match(iou, self.least)
        real = torch.tensor([bounds(mask) for mask in masks]).reshape(-1, 4).float()
        boxed = {i for i, _ in match(overlaps(real, boxes.cpu())[0].numpy(), self.least)}
        small = set(np.flatnonzero(areas < SMALL).tolist())
        seen = set(np.flatnonzero(siou(truth, labels)[ids] >= FOUND).tolist())
        self.objects += len(masks)
        self.boxes += len(boxes)
        self.boxed += len(boxed)
        self.small += len(small)
        self.small_boxed += len(small & boxed)
        self.small_outlined += len(small & {i for i, _ in pairs})
        self.found += len(seen)
        self.small_found += len(small & seen)
        self.hits += len(pairs)
        self.alarms += len(instances) - len(pairs)
        self.matched += [float(iou[pair]) for pair in pairs]
        self.best += [float(row.max()) if len(row) else 0.0 for row in iou]

    def numbers(self) -> dict[str, float]:
        """Figures 0..1 by name, and the counts of objects."""
        missed = self.objects - self.hits
        return {
            'objects': self.objects,
            'found': self.found / max(self.objects, 1),
            'box_recall': self.boxed / max(self.objects, 1),
            'box_precision': self.boxed / max(self.boxes, 1),
            'small_objects': self.small,
            'small_found': self.small_found / max(self.small, 1),
            'small_recall': self.small_boxed / max(self.small, 1),
            'small_mask_recall': self.small_outlined / max(self.small, 1),
            'matched_iou': float(np.mean(self.matched)) if self.matched else 0.0,
            'mask_iou_all': float(np.mean(self.best)) if self.best else 0.0,
            'component_f1': 2 * self.hits / max(2 * self.hits + self.alarms + missed, 1),
        }


def validate(
    scenes: Iterable[Scene], prompts: PromptModel, mask_model: MaskModel
) -> dict[str, float]:
    """Numbers of `Tally` for a prompt model and a mask model on scenes."""
    tally = Tally()
    for scene in scenes:
        probability = torch.from_numpy(scene.probability).float()
        image = torch.from_numpy(scene.image).permute(2, 0, 1)
        boxes = prompts(image[None], probability[None], probability[None])
        slots = boxes.valid[0]
        chosen = boxes.boxes[0][slots]
        (logits,) = mask_model(image[None], probability[None], chosen[None])
        found = fuse(logits, boxes.confidences[0][slots], slots[slots], probability)
        tally.add(scene.labels, found, chosen, np.zeros(scene.labels.shape, bool))
    return tally.numbers()


def mask_overlaps(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
    """Intersection over union (len(a), len(b)) of bool (H, W) masks."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    x = np.stack(a).reshape(len(a), -1).astype(np.float32)
    y = np.stack(b).reshape(len(b), -1).astype(np.float32)
    common = x @ y.T
    return common / np.maximum(x.sum(1)[:, None] + y.sum(1)[None] - common, 1)


def siou(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """
    Intersection over union that does not blame an instance for its pixels on other objects.

    SegmentMeIfYouCan's sIoU (Chan et al., arXiv 2104.14812; `ood_evaluation.component_metrics`)
    with objects in place of connected components, so that those which touch are still two.

    Args:
        truth: int (H, W), 0 = known, 1..N = objects.
        labels: int (H, W), 0 = nothing, 1..M = instances.

    Returns:
        float64 (N + 1,), of every object, 0 where there is none of that number.

    """
    objects, instances = int(truth.max()) + 1, int(labels.max()) + 1
    pairs = truth.astype(np.int64) * instances + labels
    common = np.bincount(pairs.ravel(), minlength=objects * instances)
    common = common.reshape(objects, instances)
    touched = common[:, 1:] > 0
    inside = common[:, 1:].sum(1)
    # What the touched instances hold of it and of the background, and what they miss of it.
    union = (touched * common[0, 1:]).sum(1) + common.sum(1)
    found = inside / np.maximum(union, 1)
    found[0] = 0
    return found


def match(overlap: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Pairs (row, column) of at least `least`, largest first, each row and column once."""
    rest, pairs = overlap.copy(), []
    while rest.size and rest.max() >= least:
        row, column = (int(i) for i in np.unravel_index(rest.argmax(), rest.shape))
        pairs.append((row, column))
        rest[row], rest[:, column] = -1, -1
    return pairs


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """XYXY box in pixels around a mask bool (H, W) that is not empty."""
    y, x = np.nonzero(mask)
    return int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1
