# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
InternImage: a backbone of DCNv3 blocks, T to H and G as in the official segmentation configs.

Paper: Wang et al., CVPR 2023. Parameter names are the official ones (without `backbone.`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.models.dcnv3 import DCNv3, ToChannelsLast

_L = {'post_norm': True, 'offset_scale': 2.0}
_H = {'layer_scale': None, 'dw_kernel_size': 5, 'center_feature_scale': True}

VARIANTS: dict[str, dict[str, Any]] = {
    't': {'channels': 64, 'depths': (4, 4, 18, 4), 'groups': (4, 8, 16, 32)},
    's': {'channels': 80, 'depths': (4, 4, 21, 4), 'groups': (5, 10, 20, 40), 'post_norm': True},
    'b': {'channels': 112, 'depths': (4, 4, 21, 4), 'groups': (7, 14, 28, 56), 'post_norm': True},
    'l': {'channels': 160, 'depths': (5, 5, 22, 5), 'groups': (10, 20, 40, 80), **_L},
    'xl': {'channels': 192, 'depths': (5, 5, 24, 5), 'groups': (12, 24, 48, 96), **_L},
    'h': {'channels': 320, 'depths': (6, 6, 32, 6), 'groups': (10, 20, 40, 80), **_H,
          'res_post_norm': True, 'level2_post_norm_block_ids': (5, 11, 17, 23, 29)},
    'g': {'channels': 512, 'depths': (2, 2, 48, 4), 'groups': (16, 32, 64, 128), **_H,
          'post_norm': True, 'level2_post_norm_block_ids': (5, 11, 17, 23, 29, 35, 41, 47)},
}  # fmt: skip
"""Arguments of :class:`InternImage` for each published size."""


def _norm(channels: int) -> nn.Sequential:
    # Official names put every LayerNorm into a Sequential.
    return nn.Sequential(nn.LayerNorm(channels, eps=1e-6))


def _norm_channels_last(channels: int) -> nn.Sequential:
    return nn.Sequential(ToChannelsLast(), nn.LayerNorm(channels, eps=1e-6))


class Stem(nn.Module):
    """Two strided 3x3 convolutions: (N, 3, H, W) -> (N, H/4, W/4, C), sizes rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels // 2, 3, stride=2, padding=1)
        self.norm1 = _norm_channels_last(channels // 2)
        self.act = nn.GELU()
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norm2 = _norm_channels_last(channels)

    def forward(self, images: Tensor) -> Tensor:
        """Map float (N, 3, H, W) to float (N, H/4, W/4, C)."""
        x = self.act(self.norm1(self.conv1(images)))
        return self.norm2(self.conv2(x.permute(0, 3, 1, 2)))


class Downsample(nn.Module):
    """Strided 3x3 convolution and LayerNorm: (N, H, W, C) -> (N, H/2, W/2, 2C), rounded up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = _norm_channels_last(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, H, W, C) to float (N, H/2, W/2, 2C)."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)))


class MLP(nn.Module):
    """Linear, GELU, Linear over the last axis."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (..., C) to float (..., C)."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """
    One InternImage layer: deformable convolution, then MLP, each with a residual connection.

    `post_norm` means x + g * LN(f(x)) instead of x + g * f(LN(x)), with `layer_scale` as the first
    value of g; `res_post_norm` means x + LN'(f(LN(x))), with neither `post_norm` nor g.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        mlp_ratio: float,
        post_norm: bool,
        res_post_norm: bool,
        layer_scale: float | None,
        dcn: dict[str, Any],
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.res_post_norm = res_post_norm and not post_norm and layer_scale is None
        self.norm1 = _norm(channels)
        self.dcn = DCNv3(channels, groups, **dcn)
        self.norm2 = _norm(channels)
        self.mlp = MLP(channels, int(channels * mlp_ratio))
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(layer_scale * torch.ones(channels))
            self.gamma2 = nn.Parameter(layer_scale * torch.ones(channels))
        if res_post_norm:
            self.res_post_norm1 = _norm(channels)
            self.res_post_norm2 = _norm(channels)

    def _branch(self, x: Tensor, function: nn.Module, index: int) -> Tensor:
        norm, gamma = getattr(self, f'norm{index}'), getattr(self, f'gamma{index}')
        out = norm(function(x)) if self.post_norm else function(norm(x))
        if self.res_post_norm:
            out = getattr(self, f'res_post_norm{index}')(out)
        return out if gamma is None else gamma * out

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, H, W, C) to float (N, H, W, C)."""
        x = x + self._branch(x, self.dcn, 1)
        return x + self._branch(x, self.mlp, 2)


class Level(nn.Module):
    """The blocks of one resolution, x normalised after `post_norm_ids`, and the way down."""

    def __init__(
        self,
        blocks: Sequence[Block],
        channels: int,
        final_norm: bool,
        post_norm_ids: Sequence[int],
        downsample: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = _norm(channels) if final_norm else nn.Identity()
        self.post_norm_ids = tuple(post_norm_ids)
        if self.post_norm_ids:
            self.post_norms = nn.ModuleList(_norm(channels) for _ in self.post_norm_ids)
        self.downsample = Downsample(channels) if downsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, H, W, C) to the level's output; the way down comes after it."""
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.post_norm_ids:
                x = self.post_norms[self.post_norm_ids.index(index)](x)
        return self.norm(x)


class InternImage(nn.Module):
    """
    The backbone: four maps at strides 4, 8, 16 and 32 (sizes rounded up), any image size.

    `channels` are those of the first level, doubled at each further one. The other arguments are
    those of the official configs, see :class:`Block` and `dcnv3.DCNv3`.
    """

    def __init__(
        self,
        channels: int,
        depths: Sequence[int],
        groups: Sequence[int],
        mlp_ratio: float = 4.0,
        layer_scale: float | None = 1.0,
        offset_scale: float = 1.0,
        post_norm: bool = False,
        dw_kernel_size: int = 3,
        res_post_norm: bool = False,
        level2_post_norm_block_ids: Sequence[int] = (),
        center_feature_scale: bool = False,
    ) -> None:
        super().__init__()
        self.channels = [channels * 2**i for i in range(len(depths))]
        dcn = {
            'dw_kernel_size': dw_kernel_size,
            'offset_scale': offset_scale,
            'center_feature_scale': center_feature_scale,
        }
        options = (mlp_ratio, post_norm, res_post_norm, layer_scale, dcn)
        self.patch_embed = Stem(channels)
        self.levels = nn.ModuleList(
            Level(
                [Block(width, group, *options) for _ in range(depth)],
                width,
                final_norm=not post_norm or center_feature_scale,
                post_norm_ids=level2_post_norm_block_ids if i == 2 else (),
                downsample=i < len(depths) - 1,
            )
            for i, (width, depth, group) in enumerate(
                zip(self.channels, depths, groups, strict=True)
            )
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map normalised float (N, 3, H, W) images to the levels' (N, C_i, h_i, w_i) outputs."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f'expected images (B, 3, H, W), got {tuple(images.shape)}')
        x = self.patch_embed(images)
        outputs: list[Tensor] = []
        for level in self.levels:
            assert isinstance(level, Level)
            x = level(x)
            outputs.append(x.permute(0, 3, 1, 2).contiguous())
            x = level.downsample(x)
        return outputs
