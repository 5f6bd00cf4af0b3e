# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Prompts without a network: boxes around connected components of the probability map.

On the CPU OpenCV labels the levels one by one; on a GPU all levels are labelled at once by
spreading the largest index, with shapes that do not depend on the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.masks.boxes import Boxes, clean_boxes, empty_boxes, overlaps, suppress, waits

ROUNDS, JUMPS = 10, 6  # of `label_components`: rounds, and steps of each that flatten 2^6 deep


class ComponentPrompts(nn.Module):
    """
    Boxes around connected components of the probability at several levels; see `base.PromptModel`.

    No threshold to choose: the levels are probabilities. A component counts when its peak reaches
    `seed` (hysteresis), and of nested components the one that changes least from level to level
    wins (non-maximum suppression by overlap and containment). A box's confidence is that peak.

    Args:
        slots: K, most boxes of each frame.
        levels: probabilities 0..1 at which the map is cut, increasing.
        seed: probability that a component must reach somewhere.
        min_side: components smaller than this many pixels in either direction are noise.
        cell: the map is averaged over cells of this many pixels (at 480x360) before labelling.
        margin: share of the box side added on every side.
    """

    def __init__(
        self,
        slots: int = 16,
        levels: Sequence[float] = (0.1, 0.2, 0.4, 0.7),
        seed: float = 0.4,
        min_side: float = 4.0,
        cell: int = 2,
        margin: float = 0.04,
    ) -> None:
        super().__init__()
        if slots < 1:
            raise ValueError(f'slots: expected at least 1, got {slots}')
        if not levels or not all(0 < level < 1 for level in levels):
            raise ValueError(f'levels: expected probabilities between 0 and 1, got {levels!r}')
        if cell < 1:
            raise ValueError(f'cell: expected at least 1 pixel, got {cell}')
        self.slots, self.seed, self.min_side = slots, seed, min_side
        self.levels = sorted(float(level) for level in levels)
        self.cell, self.margin = cell, margin

    @torch.no_grad()
    def forward(self, images: Tensor, score: Tensor, probability: Tensor) -> Boxes:
        """Propose boxes; see `base.PromptModel`. Reads the probability only."""
        batch, height, width = probability.shape
        if not probability.numel():
            return empty_boxes(batch, self.slots, probability.device)
        probability = probability.float()
        peak = math.nan if waits(probability.device) else float(probability.max())
        if peak < self.seed:
            return empty_boxes(batch, self.slots)
        if math.isnan(peak):
            probability = torch.nan_to_num(probability, nan=0.0)
        # The cell grows with the frame, so the work does not.
        cell = max(1, round(self.cell * max(1.0, min(height, width) / 360)))
        small = F.avg_pool2d(probability[:, None], cell, cell, ceil_mode=True)[:, 0]
        regions = [find_regions(p, self.levels, 4 * self.slots) for p in small]
        found = [self._candidates(r, cell) for r in regions]
        boxes, confidences, merit = (torch.stack(part) for part in zip(*found, strict=True))
        kept = suppress(boxes, confidences, self.slots, iou=0.5, containment=0.7, merit=merit)
        grow = (kept.boxes[..., 2:] - kept.boxes[..., :2]) * self.margin
        wide = torch.cat([kept.boxes[..., :2] - grow, kept.boxes[..., 2:] + grow], -1)
        clipped, inside = clean_boxes(wide, height, width)
        # The same rule as the early return above, frame by frame and on every device.
        valid = kept.valid & inside & (probability.amax((1, 2)) >= self.seed)[:, None]
        return Boxes(clipped * valid[..., None], kept.confidences * valid, valid)

    def _candidates(self, regions: Regions, cell: int) -> tuple[Tensor, Tensor, Tensor]:
        """Flatten the levels: pixel boxes (L * M, 4), confidences and merits (L * M,) 0..1."""
        boxes = regions.boxes * cell
        count = len(self.levels)
        stability = torch.ones_like(regions.areas)
        for i in range(count):
            near = [j for j in (i - 1, i + 1) if 0 <= j < count]
            if near:
                same = [overlaps(boxes[i], boxes[j])[0].amax(-1) for j in near]
                stability[i] = torch.stack(same).mean(0)
        sides = boxes[..., 2:] - boxes[..., :2]
        counts = (
            (regions.areas > 0) & (regions.peaks >= self.seed) & (sides.amin(-1) >= self.min_side)
        )
        confidences = (regions.peaks * counts).flatten()
        return boxes.flatten(0, 1), confidences, confidences * (0.5 + 0.5 * stability.flatten())


class Regions(NamedTuple):
    """Connected components of one map, M slots a level, L levels, largest peak of each first."""

    boxes: Tensor  # float32 (L, M, 4) XYXY in cells of the map, right and bottom edges exclusive
    areas: Tensor  # float32 (L, M), cells; 0 = the slot is empty
    peaks: Tensor  # float32 (L, M), largest probability 0..1 in the component


def find_regions(probability: Tensor, levels: Sequence[float], slots: int) -> Regions:
    """
    List the 8-connected components of {probability >= level}, float32 (h, w), for each level.

    Of each level those `slots` are kept that have the largest peak, then the largest area.
    """
    if waits(probability.device):
        return _regions_device(probability, levels, slots)
    image = probability.detach().numpy()
    out = np.zeros((len(levels), slots, 6), np.float32)
    for row, level in zip(out, levels, strict=True):
        mask = (image >= level).view(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if count < 2:
            continue
        inside = labels > 0
        owner, values = labels[inside] - 1, image[inside]
        peaks = np.zeros(count - 1, np.float32)
        np.maximum.at(peaks, owner.astype(np.intp), values)
        x, y, w, h, area = stats[1:].T.astype(np.float32)
        order = np.lexsort((-area, -peaks))[:slots]
        table = np.stack([x, y, x + w, y + h, area, peaks], 1)
        row[: len(order)] = table[order]
    table = torch.from_numpy(out)
    return Regions(table[..., :4], table[..., 4], table[..., 5])


def label_components(mask: Tensor) -> Tensor:
    """
    Label the 8-connected components of bool (L, h, w) without leaving the device.

    Gives int64 (L, h, w), the flat index of the component's last pixel, its root; -1 outside the
    mask. At first each pixel is its own root. In each round a root hangs on the largest root next
    to its component, and the trees that come of it are flattened. Ten rounds are enough for mazes
    of 180 x 320 cells, pictures need five.
    """
    count, h, w = mask.shape
    index = torch.arange(h * w, device=mask.device).view(1, h, w).expand(count, h, w)
    labels = torch.where(mask, index, -1)
    own = index.reshape(count, -1)
    for _ in range(ROUNDS):
        # Indices below 2^24 are exact in float32, which is what max-pooling wants.
        near = F.max_pool2d(labels.float()[:, None], 3, 1, 1)[:, 0].long()
        roots = labels.view(count, -1).clamp(min=0)
        near = torch.where(mask, near, -1).view(count, -1)
        parents = own.scatter_reduce(1, roots, near, 'amax')
        for _ in range(JUMPS):
            parents = parents.gather(1, parents)
        before = labels
        labels = torch.where(mask, parents.gather(1, roots).view(count, h, w), -1)
        if not waits(mask.device) and torch.equal(before, labels):
            break
    return labels


def _regions_device(probability: Tensor, levels: Sequence[float], slots: int) -> Regions:
    h, w = probability.shape
    count = len(levels)
    labels = label_components(torch.stack([probability >= level for level in levels]))
    labels = labels.view(count, -1)
    # One spare bin takes the pixels outside of every component.
    owner = torch.where(labels >= 0, labels, h * w)
    values = probability.reshape(1, -1).expand(count, -1).float()
    position = torch.arange(h * w, device=probability.device)
    x = (position % w).float().expand(count, -1)
    y = (position // w).float().expand(count, -1)

    def gathered(source: Tensor, how: str, start: float) -> Tensor:
        bins = source.new_full((count, h * w + 1), start)
        return bins.scatter_reduce(1, owner, source, how)[:, :-1]

    areas = gathered(torch.ones_like(values), 'sum', 0.0)
    peaks = gathered(values, 'amax', 0.0)
    # Peak first, then area: areas are whole numbers, so a fraction of them only breaks ties.
    rank = torch.where(areas > 0, peaks.double() + areas.double() * 1e-12, -1.0)
    slots_here = min(slots, h * w)
    chosen = rank.topk(slots_here, dim=1).indices
    boxes = torch.stack(
        [
            gathered(x, 'amin', float(w)).gather(1, chosen),
            gathered(y, 'amin', float(h)).gather(1, chosen),
            gathered(x, 'amax', -1.0).gather(1, chosen) + 1,
            gathered(y, 'amax', -1.0).gather(1, chosen) + 1,
        ],
        -1,
    )
    areas, peaks = (t.gather(1, chosen) for t in (areas, peaks))
    boxes = torch.where(areas[..., None] > 0, boxes, 0.0)
    pad = slots - slots_here
    return Regions(F.pad(boxes, (0, 0, 0, pad)), F.pad(areas, (0, pad)), F.pad(peaks, (0, pad)))
