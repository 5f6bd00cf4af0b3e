# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Heads per pixel: linear, GMMSeg and small MLPs; key names are those of the official UEM code.

Papers: Liang et al., "GMMSeg: Gaussian Mixture based Generative Semantic Segmentation Models",
NeurIPS 2022; Nayal et al., "A Likelihood Ratio-Based Approach to Segmenting Unknown Objects",
IJCV 2025, section 3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearHead(nn.Module):
    """One linear layer per pixel; key `_head`."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self._head = nn.Linear(in_channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map float (B, D, h, w) to raw logits (B, K, h, w)."""
        return self._head(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GMMSegHead(nn.Module):
    """
    Each class is a mixture of Gaussians with diagonal covariance over normalised features.

    The official code scores a class by its best component (no sum, no prior) and normalises the
    scores over the classes, so the logits are no log-likelihoods; :meth:`log_prob` gives those.
    The memory and the update of training are not here.

    Args:
        in_channels: D.
        num_classes: K.
        num_components: C Gaussians per class.

    Attributes:
        means: (K, C, D), normalised to unit length whenever they are used.
        diagonal: (K, C, D), standard deviations.
    """

    exact = True
    """It computes in float32, and so its parameters stay in a copy of the model in half."""

    def __init__(self, in_channels: int, num_classes: int, num_components: int = 5) -> None:
        super().__init__()
        shape = (num_classes, num_components, in_channels)
        # Trained by the memory's moving averages, not by gradients.
        self.means = nn.Parameter(torch.empty(shape), requires_grad=False)
        self.diagonal = nn.Parameter(torch.ones(shape), requires_grad=False)
        self.feat_norm = nn.LayerNorm(in_channels)
        self.mask_norm = nn.LayerNorm(num_classes)
        nn.init.trunc_normal_(self.means, std=0.02)

    def normalise(self, features: Tensor) -> Tensor:
        """Map float (B, D, h, w) to unit-length vectors (B, h, w, D)."""
        # a GPU's norm takes no mix of types
        features = features.permute(0, 2, 3, 1).to(self.feat_norm.weight.dtype)
        return F.normalize(self.feat_norm(features), dim=-1)

    def log_prob(self, features: Tensor) -> Tensor:
        """
        Log-density of every component.

        Args:
            features: float (B, D, h, w).

        Returns:
            float32 (B, h, w, K, C) in nats, log N(x; mu, diag(s ** 2)) of the unit-length x.
        """
        scaled, constant = self._log_prob_parts(features)
        return scaled + constant

    def _log_prob_parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        # (B, h, w, K, C) squared distances times -1/2, and the (K, C) logarithms of the peaks.
        # The square is expanded into two matrix products: (B, h, w, K * C, D) would be gigabytes.
        # Full precision whatever autocast says, since the products nearly cancel.
        with torch.autocast(features.device.type, enabled=False):
            x = self.normalise(features).float()
            means = F.normalize(self.means.float(), dim=-1).flatten(0, 1)
            scale = self.diagonal.float().flatten(0, 1)
            precision = scale.square().reciprocal()
            cross = F.linear(x, means * precision)
            squared = F.linear(x.square(), precision) - 2 * cross
            squared = squared + (means.square() * precision).sum(dim=-1)
            peak = -0.5 * means.shape[-1] * math.log(2 * math.pi) - scale.log().sum(dim=-1)
        shape = self.means.shape[:2]
        return -0.5 * squared.unflatten(-1, shape), peak.unflatten(0, shape)

    def classify(self, log_prob: Tensor) -> Tensor:
        """Map :meth:`log_prob` (B, h, w, K, C) to logits (B, K, h, w)."""
        return self.mask_norm(log_prob.amax(dim=-1)).permute(0, 3, 1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Map float (B, D, h, w) to logits (B, K, h, w)."""
        scaled, peak = self._log_prob_parts(features)
        # The norm over the classes takes away any common constant: without it fewer digits are
        # lost, which matters for two classes, where the norm multiplies differences by up to 158.
        logits = self.classify(scaled + (peak - peak.flatten().amax(0)))
        return logits.to(features.dtype)


class MLP(nn.Module):
    """
    Linear layers with ReLU between them, over the last axis; keys `_layers.{0,2,4,...}`.

    Args:
        widths: of the input, of each hidden layer and of the output.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self._layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map float (..., widths[0]) to float (..., widths[-1])."""
        return self._layers(x)


def build_head(kind: str, in_channels: int, num_classes: int, num_components: int) -> nn.Module:
    """
    Build a head by the letter that names it in the paper.

    Args:
        kind: 'd' (discriminative: linear) or 'g' (generative: GMMSeg).
        num_components: Gaussians per class of a GMMSeg head.

    Raises:
        ValueError: another kind.
    """
    if kind == 'd':
        return LinearHead(in_channels, num_classes)
    if kind == 'g':
        return GMMSegHead(in_channels, num_classes, num_components)
    raise ValueError(f"head: expected 'd' or 'g', got {kind!r}")
