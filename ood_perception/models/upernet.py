# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
UPerNet and its parts, with the key names and the arithmetic of mmsegmentation 0.27.

Paper: Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.frames.resize import resize_like


class ConvBNReLU(nn.Module):
    """Convolution without bias, batch norm, ReLU; keys `conv` and `bn`."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, inputs, h, w) to float (N, outputs, h, w)."""
        return F.relu(self.bn(self.conv(x)))


class UPerHead(nn.Module):
    """
    Pyramid pooling on the coarsest map, top-down fusion, one map at the finest resolution.

    Args:
        in_channels: of the four backbone maps, finest first.
        pool_scales: cells per side of each pooled map.
        dropout: probability of dropping a channel before the classifier, in training.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        coarsest = in_channels[-1]
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvBNReLU(coarsest, channels))
            for scale in pool_scales
        )
        self.bottleneck = ConvBNReLU(coarsest + len(pool_scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvBNReLU(c, channels) for c in in_channels[:-1])
        self.fpn_convs = nn.ModuleList(ConvBNReLU(channels, channels, 3) for _ in in_channels[:-1])
        self.fpn_bottleneck = ConvBNReLU(len(in_channels) * channels, channels, 3)

    def fuse(self, features: Sequence[Tensor]) -> Tensor:
        """Map the backbone's maps to one float (N, channels, h_0, w_0) map."""
        coarsest = features[-1]
        pooled = [resize_like(module(coarsest), coarsest) for module in self.psp_modules]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, features, strict=False)]
        laterals.append(self.bottleneck(torch.cat([coarsest, *pooled], dim=1)))
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + resize_like(laterals[i], laterals[i - 1])
        maps = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        maps.append(laterals[-1])
        maps[1:] = [resize_like(x, maps[0]) for x in maps[1:]]
        return self.fpn_bottleneck(torch.cat(maps, dim=1))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map the backbone's maps to class logits (N, K, h_0, w_0)."""
        return self.conv_seg(self.dropout(self.fuse(features)))


class FCNHead(nn.Module):
    """One 3x3 convolution and a classifier on one map: the auxiliary head of training."""

    def __init__(
        self, in_channels: int, num_classes: int, channels: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.convs = nn.Sequential(ConvBNReLU(in_channels, channels, 3))
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, feature: Tensor) -> Tensor:
        """Map float (N, in_channels, h, w) to class logits (N, K, h, w)."""
        return self.conv_seg(self.dropout(self.convs(feature)))
