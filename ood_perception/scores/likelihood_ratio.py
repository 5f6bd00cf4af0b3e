# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Likelihood-ratio scores from the UEM's two outputs and the segmentor's class logits.

Paper: Nayal et al., "A Likelihood Ratio-Based Approach to Segmenting Unknown Objects", IJCV 2025,
eq. 11, as its code computes it: raw outputs, and the maximum over classes after upsampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.models.output import SegmentorOutput


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize float (B, C, h, w) to `size` = (H, W), bilinear with align_corners=False, float32."""
    maps = maps.float()
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size, mode='bilinear', align_corners=False)


def need(tensor: Tensor | None, score: str, what: str) -> Tensor:
    """Return the tensor, or raise ValueError saying what the segmentor lacks."""
    if tensor is None:
        raise ValueError(f'score {score}: the segmentor gives no {what}; choose another score')
    return tensor


class LikelihoodRatio(nn.Module):
    """
    LLR = u_1 - u_0 - max_k F_k, in nats: how much likelier an unknown object than any class.

    Args:
        exact: True takes the maximum over classes after upsampling, as the paper; False before,
            which is several times faster on a CPU and differs at class borders only.

    """

    needs_features = False

    def __init__(self, exact: bool = True) -> None:
        super().__init__()
        self.exact = exact

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        """
        Score a batch.

        Args:
            output: with `logits` (B, K, h, w) and `ood` (B, 2, h', w').
            size: (H, W) of the score.
            streams: not used.

        Returns:
            float32 (B, H, W).

        """
        logits = need(output.logits, 'llr', 'class logits')
        ood = need(output.ood, 'llr', 'UEM outputs')
        if self.exact:
            known, u = upsample(logits, size).amax(1), upsample(ood, size)
            return u[:, 1] - u[:, 0] - known
        ratio = ood[:, 1:].float() - ood[:, :1].float()
        known = upsample(logits.float().amax(1, keepdim=True), (ratio.shape[2], ratio.shape[3]))
        return upsample(ratio - known, size)[:, 0]

    def reset(self, stream: str | None = None) -> None:
        """Nothing lives through time."""


class UemScore(nn.Module):
    """The UEM alone: u_1 - u_0, its own log ratio of outlier to inlier."""

    needs_features = False

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        """Score a batch: float32 (B, H, W); arguments as of `LikelihoodRatio.forward`."""
        u = upsample(need(output.ood, 'uem', 'UEM outputs'), size)
        return u[:, 1] - u[:, 0]

    def reset(self, stream: str | None = None) -> None:
        """Nothing lives through time."""
