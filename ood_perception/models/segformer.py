# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
SegFormer's all-MLP head, with the key names and the arithmetic of mmsegmentation 0.27.

Paper: Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with
Transformers", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ood_perception.frames.resize import resize_like
from ood_perception.models.upernet import ConvBNReLU


class SegformerHead(nn.Module):
    """
    A 1x1 convolution per backbone map, all resized to the finest, concatenated and fused.

    Args:
        in_channels: of the backbone maps, finest first.
        dropout: probability of dropping a channel before the classifier, in training.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout)
        self.convs = nn.ModuleList(ConvBNReLU(c, channels) for c in in_channels)
        self.fusion_conv = ConvBNReLU(len(in_channels) * channels, channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map the backbone's maps to class logits (N, K, h_0, w_0)."""
        maps = [conv(x) for conv, x in zip(self.convs, features, strict=True)]
        maps[1:] = [resize_like(x, maps[0]) for x in maps[1:]]
        return self.conv_seg(self.dropout(self.fusion_conv(torch.cat(maps, dim=1))))
