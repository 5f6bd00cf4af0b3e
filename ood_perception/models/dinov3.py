# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
DINOv3 by timm: features without classes, for memories of what is normal.

Paper: Siméoni et al., "DINOv3", arXiv 2508.10104. Positions are rotary, so any size whose sides
are multiples of 16 pixels will do. The weights are under Meta's DINOv3 licence and never bundled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from timm.models.eva import Eva
from torch import Tensor, nn

from ood_perception.models.dinov2 import check_size, chosen_blocks
from ood_perception.models.output import InputSpec, SegmentorOutput

PATCH = 16  # side of a patch in pixels
MOST_SIZES = 8  # sizes whose positions are kept
VARIANTS = {'s': 'small', 'b': 'base', 'l': 'large'}  # letter of the published name -> timm's


class KeptPositions(nn.Module):
    """Rotary positions, computed once a size: timm builds them on the host at every call."""

    def __init__(self, rope: nn.Module) -> None:
        super().__init__()
        self.rope = rope
        self._kept: dict[tuple[Any, ...], Tensor] = {}

    def get_embed(self, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
        """Return (h * w, 2 d) sines and cosines for a grid of (h, w) patches."""
        rope: Any = self.rope
        key = (*shape, dtype, rope.periods.device)
        if key not in self._kept:
            if len(self._kept) >= MOST_SIZES:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = rope.get_embed(shape, dtype)
        return self._kept[key]


class DINOv3(nn.Module):
    """Vision transformer over 16-pixel patches; its arguments are as those of `dinov2.DINOv2`."""

    spec = InputSpec(multiple_of=PATCH)

    def __init__(
        self, variant: str, out_indices: Sequence[int] | None = None, **options: Any
    ) -> None:
        super().__init__()
        # the form with biases holds any published file; where they are zero nothing changes
        name = f'vit_{VARIANTS[variant]}_patch{PATCH}_dinov3_qkvb'
        self.vit = cast(Eva, timm.create_model(name, num_classes=0, **options))
        self.vit.rope = KeptPositions(self.vit.rope)
        self.out_indices = chosen_blocks(out_indices, len(self.vit.blocks))

    def forward(self, images: Tensor) -> SegmentorOutput:
        """
        Describe float (B, 3, H, W), RGB, normalised with `spec`, sides multiples of 16.

        The features are one (B, D, H / 16, W / 16) map of patch tokens per block, in increasing
        depth, after the final LayerNorm. Another size is a ValueError.
        """
        check_size(images, PATCH, 'DINOv3')
        maps = self.vit.forward_intermediates(
            images, indices=self.out_indices, norm=True, stop_early=True, intermediates_only=True
        )
        return SegmentorOutput(features=cast(list[Tensor], maps))
