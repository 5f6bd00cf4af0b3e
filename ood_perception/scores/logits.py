# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Scores from the class logits alone: no outlier data, no training.

All are signed so that higher = more unknown. Sources: max-logit, Hendrycks et al., "Scaling
Out-of-Distribution Detection for Real-World Settings", ICML 2022; maximum softmax, Hendrycks &
Gimpel, ICLR 2017; energy, Liu et al., NeurIPS 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.base import ScoreModule, need, upsample


def max_logit(logits: Tensor) -> Tensor:
    """Minus the largest logit: (B, K, H, W) -> (B, H, W)."""
    return -logits.amax(1)


def max_softmax(logits: Tensor) -> Tensor:
    """One minus the largest softmax probability, 0..1: (B, K, H, W) -> (B, H, W)."""
    return 1 - logits.softmax(1).amax(1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax over its largest value log K, 0..1: (B, K, H, W) -> (B, H, W)."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1) / math.log(max(logits.shape[1], 2))


def energy(logits: Tensor) -> Tensor:
    """Free energy, minus the log-sum-exp of the logits: (B, K, H, W) -> (B, H, W)."""
    return -logits.logsumexp(1)


def max_logit_minus_mean(logits: Tensor) -> Tensor:
    """Minus how far the largest logit is above the mean logit: (B, K, H, W) -> (B, H, W)."""
    return logits.mean(1) - logits.amax(1)


class LogitScore(ScoreModule):
    """
    A function of the class logits as a score.

    Args:
        function: (B, K, h, w) -> (B, h, w).
        exact: True upsamples the logits first, as the papers; False the score, which is faster.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], exact: bool = True) -> None:
        super().__init__()
        self.function, self.exact = function, exact

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        """Score a batch with `output.logits` (B, K, h, w): float32 (B, H, W)."""
        logits = need(output.logits, 'of logits', 'class logits')
        if self.exact:
            return self.function(upsample(logits, size))
        return upsample(self.function(logits.float())[:, None], size)[:, 0]
