# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The feature pyramid decoder of UEM over four DINOv2 maps; key names are the official ones.

Paper: Nayal et al., "A Likelihood Ratio-Based Approach to Segmenting Unknown Objects", IJCV 2025.
The interpolation modes differ from step to step in the official code, and so they do here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.models.folding import Foldable
from ood_perception.models.heads import MLP


def _smooth(channels: int, doublings: int) -> nn.Sequential:
    # Slots 0, 4, 8: convolution; 1, 5, 9: batch norm; 2, 6, 10: ReLU; 3, 7, 11: resize.
    layers: list[nn.Module] = []
    for _ in range(max(doublings, 1)):
        layers += [
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode='bilinear'))
    return nn.Sequential(*layers)


def multiply(enlarge: Any, project: Any) -> tuple[Tensor, Tensor]:
    """
    Weight and bias of a transposed convolution and the 1x1 convolution after it as one.

    Both are linear, so the result is the same; the wide map between them, at up to 16 times the
    pixels of the input, is never computed.
    """
    mix = project.weight[:, :, 0, 0]
    weight = torch.einsum('iokl,po->ipkl', enlarge.weight, mix)
    return weight, F.linear(enlarge.bias, mix, project.bias)


class FPN(Foldable):
    """
    Four maps of one resolution -> a pyramid -> one map at four times the resolution.

    Args:
        in_channels: D of the input maps.
        channels: inner and output width.
        mlp_hidden: hidden width of the MLP on the final tokens.
    """

    def __init__(self, in_channels: int, channels: int = 256, mlp_hidden: int = 512) -> None:
        super().__init__()
        dim = in_channels
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
        Decode.

        Args:
            features: four float (B, D, h, w) maps, from shallow to deep.
            final: float (B, D, h, w), the last block's tokens after the final LayerNorm.

        Returns:
            float (B, channels, 4 h, 4 w).
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
        total: Tensor | None = None
        for conv, head, lateral in zip(self.fpn_convs, self.heads, laterals, strict=True):
            x = head(conv(lateral))
            if total is None:
                total = x
                continue
            if x.shape[2:] != total.shape[2:]:
                x = F.interpolate(x, total.shape[2:], mode='bilinear', align_corners=True)
            total = total + x
        assert total is not None
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
        """Multiply the kernels of the two enlarging levels once, see `multiply`."""
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
