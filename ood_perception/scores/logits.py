# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Scores from the network's last outputs: class logits, and the likelihood ratio of a UEM.

All are signed so that higher = more unknown. Sources: max-logit, Hendrycks et al., "Scaling
Out-of-Distribution Detection for Real-World Settings", ICML 2022; maximum softmax, Hendrycks &
Gimpel, ICLR 2017; energy, Liu et al., NeurIPS 2020; likelihood ratio, Nayal, Shoeb, Güney, "A
Likelihood Ratio-Based Approach to Segmenting Unknown Objects", IJCV 2025, equation 11.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from ood_perception.frames.resize import upsample
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.base import ScoreModule, Size


def need(tensor: Tensor | None, score: str, what: str) -> Tensor:
    """Return the tensor, or raise ValueError saying what the segmentor lacks."""
    if tensor is None:
        raise ValueError(f'score {score}: the segmentor gives no {what}; choose another score')
    return tensor


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
    A function (B, K, h, w) -> (B, h, w) of the class logits as a score.

    `exact` upsamples the logits first, as the papers do; otherwise the score, which is faster.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], exact: bool = True) -> None:
        super().__init__()
        self.function, self.exact = function, exact

    def forward(self, output: SegmentorOutput, size: Size, streams: Sequence[str] = ()) -> Tensor:
        """Score a batch with `logits`: float32 (B, H, W); see `ScoreModule`."""
        logits = need(output.logits, 'of logits', 'class logits')
        if self.exact:
            return self.function(upsample(logits, size))
        return upsample(self.function(logits.float())[:, None], size)[:, 0]


def log_likelihood_ratio(logits: Tensor | None, ood: Tensor, size: Sequence[int]) -> Tensor:
    """
    Log-likelihood ratio u_1 - u_0 - max_k F_k: how much likelier an unknown object than any class.

    Equation 11 of the paper as its code computes it: on raw network outputs, class logits F_k,
    float (B, K, h, w), or None for the UEM alone, and outputs u of the UEM, float (B, 2, h', w'),
    0 = inlier, 1 = outlier; the maximum is taken after both were upsampled (bilinear,
    align_corners=False) to (H, W). Returns float32 (float64 from float64) (B, H, W), in nats.
    """
    u = upsample(ood, size)
    ratio = u[:, 1] - u[:, 0]
    return ratio if logits is None else ratio - upsample(logits, size).amax(1)


def coarse_ratio(output: SegmentorOutput) -> Tensor:
    """
    Log-likelihood ratio (B, h', w') at the size of the UEM's outputs, in nats.

    The maximum over the classes is taken before the logits are upsampled, which is several times
    faster on a CPU and differs at class borders only. ValueError without logits or UEM outputs.
    """
    logits = need(output.logits, 'llr', 'class logits')
    ood = need(output.ood, 'llr', 'UEM outputs')
    return log_likelihood_ratio(logits.amax(1, keepdim=True), ood, ood.shape[2:])


class LikelihoodRatio(ScoreModule):
    """
    The log-likelihood ratio as a score, in nats.

    `exact` takes the maximum over classes after upsampling, as the paper does; otherwise before,
    see `coarse_ratio`.
    """

    def __init__(self, exact: bool = True) -> None:
        super().__init__()
        self.exact = exact

    def forward(self, output: SegmentorOutput, size: Size, streams: Sequence[str] = ()) -> Tensor:
        """Score a batch with `logits` and `ood`: float32 (B, H, W); see `ScoreModule`."""
        if not self.exact:
            return upsample(coarse_ratio(output)[:, None], size)[:, 0]
        logits = need(output.logits, 'llr', 'class logits')
        return log_likelihood_ratio(logits, need(output.ood, 'llr', 'UEM outputs'), size)


class UemScore(ScoreModule):
    """The UEM alone: u_1 - u_0, its own log ratio of outlier to inlier."""

    def forward(self, output: SegmentorOutput, size: Size, streams: Sequence[str] = ()) -> Tensor:
        """Score a batch with `ood`: float32 (B, H, W); see `ScoreModule`."""
        return log_likelihood_ratio(None, need(output.ood, 'uem', 'UEM outputs'), size)
