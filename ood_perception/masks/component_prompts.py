# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Prompts without a network: boxes around connected components of the probability map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.masks.boxes import Boxes, clean_boxes, empty_boxes, overlaps, suppress, waits
from ood_perception.masks.components import Regions, find_regions


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

    Raises:
        ValueError: an option out of its range.

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
        peak = math.nan if waits(probability) else float(probability.max())
        if peak < self.seed:
            return empty_boxes(batch, self.slots)
        if math.isnan(peak):
            probability = torch.nan_to_num(probability, nan=0.0)
        # The cell grows with the frame, so the work does not.
        cell = max(1, round(self.cell * max(1.0, min(height, width) / 360)))
        small = F.avg_pool2d(probability[:, None], cell, cell, ceil_mode=True)[:, 0]
        found = [
            self._candidates(find_regions(p, self.levels, 4 * self.slots), cell) for p in small
        ]
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
