# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The log-likelihood ratio, from the UEM's two outputs and the segmentor's class logits.

Paper: Nayal, Shoeb, Güney, "A Likelihood Ratio-Based Approach to Segmenting Unknown Objects",
IJCV 2025, equation 11.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.base import ScoreModule, full, need, upsample


def log_likelihood_ratio(logits: Tensor | None, ood: Tensor, size: Sequence[int]) -> Tensor:
    """
    Log-likelihood ratio u_1 - u_0 - max_k F_k: how much likelier an unknown object than any class.

    Equation 11 of the paper as its code computes it: on raw network outputs, and with the maximum
    over classes taken after both maps were upsampled (bilinear, align_corners=False).

    Args:
        logits: float (B, K, h, w), class logits F_k; None = the UEM alone, u_1 - u_0.
        ood: float (B, 2, h', w'), outputs u of the UEM: channel 0 = inlier, 1 = outlier.
        size: (H, W) of the result in pixels.

    Returns:
        float32 (float64 from float64) (B, H, W), in nats, higher = more unknown.
    """
    u = upsample(ood, size)
    ratio = u[:, 1] - u[:, 0]
    return ratio if logits is None else ratio - upsample(logits, size).amax(1)


class LikelihoodRatio(ScoreModule):
    """
    The log-likelihood ratio as a score, in nats.

    Args:
        exact: True takes the maximum over classes after upsampling, as the paper; False before,
            which is several times faster on a CPU and differs at class borders only.
    """

    def __init__(self, exact: bool = True) -> None:
        super().__init__()
        self.exact = exact

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        """Score a batch with `logits` and `ood`: float32 (B, H, W); see `Score.__call__`."""
        logits = need(output.logits, 'llr', 'class logits')
        ood = need(output.ood, 'llr', 'UEM outputs')
        if self.exact:
            return log_likelihood_ratio(logits, ood, size)
        best = full(logits).amax(1, keepdim=True)
        return upsample(log_likelihood_ratio(best, ood, ood.shape[2:])[:, None], size)[:, 0]


class UemScore(ScoreModule):
    """The UEM alone: u_1 - u_0, its own log ratio of outlier to inlier."""

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        """Score a batch with `ood`: float32 (B, H, W); see `Score.__call__`."""
        return log_likelihood_ratio(None, need(output.ood, 'uem', 'UEM outputs'), size)
