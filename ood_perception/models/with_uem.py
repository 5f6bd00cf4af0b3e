# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A UEM on top of any segmentor of the registry, also one without class logits.

Paper: Nayal, Shoeb, Güney, "A Likelihood Ratio-Based Approach to Segmenting Unknown Objects",
IJCV 2025: the UEM reads frozen features and leaves the segmentor as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.models.heads import MLP, build_head
from ood_perception.models.output import InputSpec, SegmentorOutput


class FeatureUEM(nn.Module):
    """
    MLP and two-channel head over chosen feature maps, concatenated at the finest one's size.

    Args:
        channels: of the chosen maps.
        levels: which maps of `SegmentorOutput.features`, counted from 0 or from the end.
        hidden: widths of the MLP's hidden layers.
        width: of its output.
        head: 'd' linear or 'g' GMMSeg.

    """

    def __init__(
        self,
        channels: Sequence[int],
        levels: Sequence[int] = (-1,),
        hidden: Sequence[int] = (512, 512),
        width: int = 256,
        head: str = 'd',
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.projector = MLP((sum(channels), *hidden, width))
        self.head = build_head(head, width, 2, 5)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, C_i, h_i, w_i) -> u (B, 2, h, w), channel 0 inlier, 1 outlier."""
        chosen = [maps[level] for level in self.levels]
        size = max((tuple(m.shape[2:]) for m in chosen), key=lambda s: s[0] * s[1])
        resized = [
            m if tuple(m.shape[2:]) == size else F.interpolate(m, size, mode='bilinear')
            for m in chosen
        ]
        x = self.projector(torch.cat(resized, 1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(x)


class WithUEM(nn.Module):
    """
    A frozen segmentor, and a UEM on its features.

    Args:
        segmentor: entry of the registry, built.
        uem: maps of its features to two channels.

    Attributes:
        spec: the segmentor's.

    """

    def __init__(self, segmentor: nn.Module, uem: FeatureUEM) -> None:
        super().__init__()
        self.segmentor, self.uem = segmentor, uem
        self.spec: InputSpec = segmentor.spec  # type: ignore[assignment]

    def forward(self, images: Tensor) -> SegmentorOutput:
        """Segment normalised images (B, 3, H, W), and add `ood` to the segmentor's output."""
        out = self.segmentor(images)
        return SegmentorOutput(out.features, out.logits, self.uem(out.features))


def build_with_uem(
    segmentor: str = 'dinov2_vitb14_reg',
    levels: Sequence[int] = (-1,),
    hidden: Sequence[int] = (512, 512),
    width: int = 256,
    head: str = 'd',
    num_classes: int | None = None,
    **options: Any,
) -> WithUEM:
    """
    Build `with_uem`.

    Args:
        segmentor: entry of the registry.
        levels: see :class:`FeatureUEM`.
        hidden: see :class:`FeatureUEM`.
        width: see :class:`FeatureUEM`.
        head: see :class:`FeatureUEM`.
        num_classes: of the segmentor; None = its own default.
        **options: of the segmentor.

    """
    from ood_perception.models.registry import create_model

    if num_classes is not None and not segmentor.startswith('dinov2'):
        options['num_classes'] = num_classes
    inner: Any = create_model(segmentor, **options)
    side = 2 * inner.spec.multiple_of if inner.spec.multiple_of > 1 else 64
    parameter = next(inner.parameters())
    with torch.no_grad():  # the widths of the maps, from a tiny image
        probe = torch.zeros(1, 3, side, side, device=parameter.device)
        maps = inner(probe).features
    channels = [int(maps[level].shape[1]) for level in levels]
    return WithUEM(inner, FeatureUEM(channels, levels, hidden, width, head))
