# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
InternImage with UPerNet or SegFormer, by the names and the arithmetic of mmsegmentation 0.27.

Papers: Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018; Xie et al.,
"SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", NeurIPS 2021.
Nothing here trains, so the dropout of the originals is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.frames.resize import resize_like
from ood_perception.models.internimage import VARIANTS, InternImage
from ood_perception.models.output import InputSpec, SegmentorOutput

DEFAULT_CLASSES = 150  # rows of every released file's classifier, also of those of 19 classes


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
    """Pyramid pooling on the coarsest of the maps, finest first, and top-down fusion."""

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int) -> None:
        super().__init__()
        *finer, coarsest = in_channels
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), ConvBNReLU(coarsest, channels))
            for scale in (1, 2, 3, 6)
        )
        self.bottleneck = ConvBNReLU(coarsest + 4 * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvBNReLU(c, channels) for c in finer)
        self.fpn_convs = nn.ModuleList(ConvBNReLU(channels, channels, 3) for _ in finer)
        self.fpn_bottleneck = ConvBNReLU(len(in_channels) * channels, channels, 3)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map the backbone's maps to class logits (N, K, h_0, w_0)."""
        coarsest = features[-1]
        pooled = [resize_like(module(coarsest), coarsest) for module in self.psp_modules]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, features, strict=False)]
        laterals.append(self.bottleneck(torch.cat([coarsest, *pooled], dim=1)))
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + resize_like(laterals[i], laterals[i - 1])
        maps = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        maps.append(laterals[-1])
        maps[1:] = [resize_like(x, maps[0]) for x in maps[1:]]
        return self.conv_seg(self.fpn_bottleneck(torch.cat(maps, dim=1)))


class SegformerHead(nn.Module):
    """A 1x1 convolution per map, finest first, all resized to the finest and fused."""

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.convs = nn.ModuleList(ConvBNReLU(c, channels) for c in in_channels)
        self.fusion_conv = ConvBNReLU(len(in_channels) * channels, channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map the backbone's maps to class logits (N, K, h_0, w_0)."""
        maps = [conv(x) for conv, x in zip(self.convs, features, strict=True)]
        maps[1:] = [resize_like(x, maps[0]) for x in maps[1:]]
        return self.conv_seg(self.fusion_conv(torch.cat(maps, dim=1)))


class FCNHead(nn.Module):
    """One 3x3 convolution and a classifier on one map: the auxiliary head of training."""

    def __init__(self, in_channels: int, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.convs = nn.Sequential(ConvBNReLU(in_channels, channels, 3))

    def forward(self, feature: Tensor) -> Tensor:
        """Map float (N, in_channels, h, w) to class logits (N, K, h, w)."""
        return self.conv_seg(self.convs(feature))


class EncoderDecoder(nn.Module):
    """
    `internimage_{variant}_{head}` with random weights.

    Args:
        variant: key of `internimage.VARIANTS`.
        head: 'upernet' or 'segformer'.
        num_classes: rows of the classifier; None takes 150 and lets a checkpoint change it.
        used_classes: keep only the first so many logits (the released Cityscapes files have 150
            rows of which 19 are trained), None keeps all.
        head_channels: inner width of the head; None is the published one (512 or 256).
        aux_channels: inner width of the auxiliary head.
        auxiliary: build UPerNet's auxiliary head (never run here; part of the published counts).
        **backbone: arguments of :class:`InternImage` that differ from the variant's.
    """

    spec = InputSpec()
    optional_keys = ('auxiliary_head.',)  # a checkpoint may lack them
    any_batch = False  # exports are for one: with any, the many reshapes take minutes to trace

    def __init__(
        self,
        variant: str,
        head: str,
        num_classes: int | None = None,
        used_classes: int | None = None,
        head_channels: int | None = None,
        aux_channels: int = 256,
        auxiliary: bool = True,
        **backbone: Any,
    ) -> None:
        super().__init__()
        self.backbone = net = InternImage(**{**VARIANTS[variant], **backbone})
        classes = DEFAULT_CLASSES if num_classes is None else num_classes
        self.auxiliary_head: FCNHead | None = None
        if head == 'upernet':
            self.decode_head: UPerHead | SegformerHead = UPerHead(
                net.channels, classes, head_channels or 512
            )
            if auxiliary:
                self.auxiliary_head = FCNHead(net.channels[-2], classes, aux_channels)
        else:
            self.decode_head = SegformerHead(net.channels, classes, head_channels or 256)
        self.used_classes, self.adapt_classes = used_classes, num_classes is None

    def set_num_classes(self, num_classes: int) -> None:
        """Replace the classifiers by ones with `num_classes` rows, on the same device."""
        for head in (self.decode_head, self.auxiliary_head):
            if head is not None and head.conv_seg.out_channels != num_classes:
                old = head.conv_seg
                head.conv_seg = nn.Conv2d(old.in_channels, num_classes, 1).to(old.weight)

    def forward(self, images: Tensor) -> SegmentorOutput:
        """
        Segment float (B, 3, H, W), RGB, normalised with :attr:`spec`, of any size.

        The features are the backbone's four maps, the logits (B, K, H / 4, W / 4), rounded up.
        """
        features = self.backbone(images)
        logits = self.decode_head(features)
        if self.used_classes is not None:
            logits = logits[:, : self.used_classes]
        return SegmentorOutput(features=features, logits=logits)
