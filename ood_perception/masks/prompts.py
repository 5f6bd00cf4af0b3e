# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Prompt generators: from a score map to the boxes of what may be unknown objects.

Adding one is one class or function and one entry of `PROMPTS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.masks.boxes import Boxes, clean_boxes, empty_boxes, overlaps, suppress
from ood_perception.masks.components import Regions, find_regions
from ood_perception.masks.light_prompts import LightPrompts


class ComponentPrompts(nn.Module):
    """
    Boxes around connected components of the calibrated probability at several levels.

    No threshold to choose: the levels are probabilities. A component counts when its peak reaches
    `seed` (hysteresis), and of nested components the one that changes least from level to level
    wins (non-maximum suppression by overlap and containment). A box's score is that peak.

    Args:
        slots: K, boxes kept for each frame.
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
    def forward(self, score: Tensor, probability: Tensor) -> Boxes:
        """
        Propose boxes.

        Args:
            score: float32 (B, H, W); not used, the probability says it all.
            probability: float32 (B, H, W), 0..1; NaN counts as 0.

        """
        batch, height, width = probability.shape
        if not probability.numel():
            return empty_boxes(batch, self.slots, probability.device)
        probability = probability.float()
        peak = float(probability.max()) if probability.device.type == 'cpu' else math.nan
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
        boxes, scores, worth = (torch.stack(part) for part in zip(*found, strict=True))
        kept = suppress(boxes, scores, self.slots, iou=0.5, containment=0.7, worth=worth)
        grow = (kept.boxes[..., 2:] - kept.boxes[..., :2]).repeat(1, 1, 2) * self.margin
        sign = grow.new_tensor([-1, -1, 1, 1])
        clipped, some = clean_boxes(kept.boxes + sign * grow, height, width)
        valid = kept.valid & some
        return Boxes(clipped * valid[..., None], kept.scores * valid, valid)

    def _candidates(self, regions: Regions, cell: int) -> tuple[Tensor, Tensor, Tensor]:
        """Flatten the levels to pixel boxes (L * M, 4), scores and merits (L * M,) 0..1."""
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
        scores = (regions.peaks * counts).flatten()
        return boxes.flatten(0, 1), scores, scores * (0.5 + 0.5 * stability.flatten())


def faster_rcnn_prompts(weights: str = '', **options: Any) -> nn.Module:
    """Build the paper's Faster R-CNN R50-FPN on the raw score map, see `masks.rcnn_prompts`."""
    from ood_perception.masks.rcnn_prompts import RCNNPrompts

    return RCNNPrompts(weights=weights, **options)


PROMPTS: dict[str, Callable[..., nn.Module]] = {
    'components': ComponentPrompts,
    'light': LightPrompts,
    'faster_rcnn': faster_rcnn_prompts,
}
"""Prompt generators by name: ``(score (B, H, W), probability (B, H, W)) -> Boxes``."""


def create_prompts(name: str, **options: Any) -> nn.Module:
    """
    Build a prompt generator.

    Args:
        name: entry of `PROMPTS`.
        **options: keyword arguments of the entry.

    Raises:
        ValueError: no such entry, or an option out of its range.
        TypeError: an option that the entry does not have.

    """
    if name not in PROMPTS:
        raise ValueError(f'no prompt generator named {name!r}; there are: {", ".join(PROMPTS)}')
    return PROMPTS[name](**options)
