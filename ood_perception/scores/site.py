# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The log-likelihood ratio, corrected by a memory of the site.

The trained score knows what objects are, the memory what stands here every day. While it learns,
each kept token also keeps the most that the ratio was there. What looks familiar is less unknown
than the ratio says, and no longer unknown for being as high as it was in normal operation:

    s = r - weight spread max(2 - n, 0) - max(level - usual, 0) exp(-max(n, 0))

with the ratio r, the novelty n in standard deviations, the level of the nearest token, and the
usual level and spread of the ratio on the site (mean + 3 spread; standard deviation).
The memory only lowers: being new alone is no alarm, a robot sees new walls every day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.base import Size, upsample
from ood_perception.scores.logits import LikelihoodRatio
from ood_perception.scores.novelty import NoveltyScore
from ood_perception.scores.tokens import mean_and_std

FAMILIAR = 2.0  # standard deviations below which a token is familiar
USUAL = 3.0  # standard deviations above the mean from which the ratio is unusual on the site


class SiteScore(NoveltyScore):
    """
    Likelihood ratio and novelty together, see the module; the ratio alone until it is taught.

    Args:
        weight: of what is familiar.
        exact: see `LikelihoodRatio`.
        options: of `NoveltyScore`.
    """

    judges_untaught = True

    def __init__(self, weight: float = 1.0, exact: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if weight < 0:
            raise ValueError(f'weight: expected 0 or more, got {weight}')
        self.weight = weight
        self.ratio = LikelihoodRatio(exact)

    def forward(self, output: SegmentorOutput, size: Size, streams: Sequence[str] = ()) -> Tensor:
        """Score a batch: float32 (B, H, W), in nats; see `Score.__call__`."""
        ratio: Tensor = self.ratio(output, size, streams)
        self._watch(output, ratio)
        grid = self._grid(output)
        if not self._fits(grid.shape[1]) or not self.size:
            return ratio
        novelty, level = self.compare(grid)
        mean, spread = mean_and_std(self.memory.levels)
        excess = (level - mean - USUAL * spread).clamp_min(0) * (-novelty.clamp_min(0)).exp()
        familiar = self.weight * spread * (FAMILIAR - novelty).clamp_min(0)
        return ratio - upsample((familiar + excess)[:, None], size)[:, 0]
