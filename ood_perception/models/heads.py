# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Parts of UEM: heads per pixel (linear, GMMSeg, small MLPs) and the decoder over four DINOv2 maps.

Papers: Liang et al., "GMMSeg: Gaussian Mixture based Generative Semantic Segmentation Models",
NeurIPS 2022; Nayal et al., "A Likelihood Ratio-Based Approach to Segmenting Unknown Objects",
IJCV 2025, section 3. Key names are the official ones. The interpolation modes of the decoder
differ from step to step in the official code, and so they do here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

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
    scores over the classes, so the logits are no log-likelihoods.
    """

    exact = True  # it computes in float32: its parameters stay so in a copy of the model in half

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

    def log_prob_parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Log N(x; mu, diag(s ** 2)) of (B, h, w, K, C) in two parts: -1/2 d ** 2, and (K, C)."""
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
        """Map log-densities (B, h, w, K, C) to logits (B, K, h, w)."""
        return self.mask_norm(log_prob.amax(dim=-1)).permute(0, 3, 1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Map float (B, D, h, w) to logits (B, K, h, w)."""
        scaled, peak = self.log_prob_parts(features)
        # The norm over the classes takes away any common constant: without it fewer digits are
        # lost, which matters for two classes, where the norm multiplies differences by up to 158.
        return self.classify(scaled + (peak - peak.flatten().amax(0))).to(features.dtype)


class MLP(nn.Module):
    """Linear layers of these widths with ReLU between them, over the last axis."""

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
    """Build a head by its letter in the paper: 'd', discriminative: linear; 'g': GMMSeg."""
    if kind == 'd':
        return LinearHead(in_channels, num_classes)
    if kind == 'g':
        return GMMSegHead(in_channels, num_classes, num_components)
    raise ValueError(f"head: expected 'd' or 'g', got {kind!r}")


def _smooth(channels: int, doublings: int) -> nn.Sequential:
    # Slots 0, 4, 8: convolution; 1, 5, 9: batch norm; 2, 6, 10: ReLU; 3, 7, 11: resize.
    layers: list[nn.Module] = []
    for _ in range(max(doublings, 1)):
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode='bilinear'))
    return nn.Sequential(*layers)


def multiply(enlarge: Any, project: Any) -> tuple[Tensor, Tensor]:
    """
    Weight and bias of a transposed convolution and the 1x1 convolution after it as one.

    Both are linear: the wide map between them, at up to 16 times the pixels, is never computed.
    """
    mix = project.weight[:, :, 0, 0]
    weight = torch.einsum('iokl,po->ipkl', enlarge.weight, mix)
    return weight, F.linear(enlarge.bias, mix, project.bias)


class FPN(nn.Module):
    """Four maps of one resolution and `dim` channels -> a pyramid -> one map at four times it."""

    def __init__(self, dim: int, channels: int = 256, mlp_hidden: int = 512) -> None:
        super().__init__()
        self.fpn1 = nn.Sequential(
            nn.GroupNorm(1, dim),
            nn.ConvTranspose2d(dim, dim, 2, stride=2),
            nn.BatchNorm2d(dim),
            nn.GELU(),
            nn.ConvTranspose2d(dim, dim, 2, stride=2),
        )
        self.fpn2 = nn.Sequential(nn.GroupNorm(1, dim), nn.ConvTranspose2d(dim, dim, 2, stride=2))
        self.fpn3 = nn.GroupNorm(1, dim)
        self.fpn4 = nn.Sequential(nn.GroupNorm(1, dim), nn.MaxPool2d(2, 2))
        self.dino_mlp = MLP((dim, mlp_hidden, channels))
        widths = (dim, dim, dim + channels, dim)
        self.lateral_convs = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        self.heads = nn.ModuleList(_smooth(channels, i) for i in range(len(widths)))

    def forward(self, features: Sequence[Tensor], final: Tensor) -> Tensor:
        """
        Decode four float (B, D, h, w) maps, shallow to deep, to float (B, channels, 4 h, 4 w).

        `final` are the last block's tokens after the final LayerNorm, float (B, D, h, w).
        """
        extra = self.dino_mlp(final.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        laterals = [
            self._enlarge(0, self.fpn1, features[0]),
            self._enlarge(1, self.fpn2, features[1]),
            self.lateral_convs[2](torch.cat([self.fpn3(features[2]), extra], dim=1)),
            self.lateral_convs[3](self.fpn4(features[3])),
        ]
        for i in range(len(laterals) - 1, 0, -1):
            size = laterals[i - 1].shape[2:]
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size, mode='nearest')
        total, *coarser = [
            head(conv(lateral))
            for conv, head, lateral in zip(self.fpn_convs, self.heads, laterals, strict=True)
        ]
        for x in coarser:
            if x.shape[2:] != total.shape[2:]:
                x = F.interpolate(x, total.shape[2:], mode='bilinear', align_corners=True)
            total = total + x
        return total

    def _enlarge(self, level: int, stages: nn.Sequential, x: Tensor) -> Tensor:
        """Run the stages of a level, the last of which doubles the size, and its lateral."""
        lateral = self.lateral_convs[level]
        if isinstance(lateral, nn.ConvTranspose2d):
            return lateral(stages(x))  # type: ignore[no-any-return]
        weight, bias = multiply(stages[-1], lateral)
        return F.conv_transpose2d(stages[:-1](x), weight, bias, stride=2)

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the enlarging levels' kernels once, see `multiply`; some get other keys."""
        for level, name in enumerate(('fpn1', 'fpn2')):
            lateral = self.lateral_convs[level]
            if isinstance(lateral, nn.ConvTranspose2d):
                continue
            stages = getattr(self, name)
            weight, bias = multiply(stages[-1], lateral)
            folded = nn.ConvTranspose2d(
                weight.shape[0], weight.shape[1], 2, stride=2, device=weight.device
            )
            folded.weight, folded.bias = nn.Parameter(weight), nn.Parameter(bias)
            setattr(self, name, stages[:-1])
            self.lateral_convs[level] = folded.train(self.training)


def fold(model: nn.Module) -> nn.Module:
    """Fold the decoder that a model may have for inference, in place; returns the model."""
    for layer in [layer for layer in model.modules() if isinstance(layer, FPN)]:
        layer.fold()
    return model
