# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
DINOv2 on timm's vision transformer, with the official position-embedding resampling.

Papers: Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024;
Darcet et al., "Vision Transformers Need Registers", ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ood_perception.models.output import InputSpec, SegmentorOutput

PATCH = 14  # side of a patch in pixels

VARIANTS: dict[str, dict[str, Any]] = {
    's': {'embed_dim': 384, 'depth': 12, 'num_heads': 6},
    'b': {'embed_dim': 768, 'depth': 12, 'num_heads': 12},
    'l': {'embed_dim': 1024, 'depth': 24, 'num_heads': 16},
    # The gated MLP's two halves: 2 * 4096 hidden channels for 1536.
    'g': {'embed_dim': 1536, 'depth': 40, 'num_heads': 24, 'mlp_ratio': 2.66667 * 2,
          'mlp_layer': SwiGLUPacked, 'act_layer': nn.SiLU},
}  # fmt: skip
"""Arguments of :class:`DINOv2` for each published size."""


def resample_positions(table: Tensor, height: int, width: int, registers: bool) -> Tensor:
    """
    Resample a table of patch positions (1, side * side, D) to (1, height * width, D), in float32.

    As the official code does. Models with registers: bicubic with antialiasing to the exact size.
    Models without: bicubic without antialiasing and with the scale (size + 0.1) / side, an offset
    of the first release that its weights were trained with.
    """
    side = round(table.shape[1] ** 0.5)
    if (height, width) == (side, side):
        return table
    grid = table.float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if registers:
        grid = F.interpolate(grid, size=(height, width), mode='bicubic', antialias=True)
    else:
        scale = ((height + 0.1) / side, (width + 0.1) / side)
        grid = F.interpolate(grid, scale_factor=scale, mode='bicubic', antialias=False)
    return grid.permute(0, 2, 3, 1).reshape(1, height * width, -1).to(table.dtype)


class DINOv2(VisionTransformer):
    """
    Vision transformer over 14-pixel patches; parameter names are timm's.

    Args:
        variant: key of `VARIANTS`.
        registers: number of register tokens, 0 or 4 in the published models.
        table_size: side of the square image in pixels that the position table belongs to.
        out_indices: blocks whose output becomes :attr:`SegmentorOutput.features`, counted from 0;
            None takes the last four.
        **options: arguments of timm's VisionTransformer that differ from the variant's.
    """

    spec = InputSpec(multiple_of=PATCH)
    # resampled position tables by size, see `export.tables_kept`
    tables: dict[tuple[int, int], Tensor] | None = None

    def __init__(
        self,
        variant: str,
        registers: int = 0,
        table_size: int = 518,
        out_indices: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            img_size=table_size,
            patch_size=PATCH,
            reg_tokens=registers,
            no_embed_class=bool(registers),
            num_classes=0,
            dynamic_img_size=True,
            **{'init_values': 1.0, **VARIANTS[variant], **options},
        )
        self.out_indices = chosen_blocks(out_indices, len(self.blocks))

    def _pos_embed(self, x: Tensor) -> Tensor:
        # Replaces timm's: (B, h, w, D) patch tokens -> (B, prefix + h * w, D) with positions.
        batch, height, width, dim = x.shape
        assert self.pos_embed is not None
        assert self.cls_token is not None
        table: Tensor = self.pos_embed
        prefix: Tensor = self.cls_token
        if self.reg_token is None:
            prefix, table = prefix + table[:, :1], table[:, 1:]
        tables, size = {} if self.tables is None else self.tables, (height, width)
        if size not in tables:
            tables[size] = resample_positions(table, *size, self.reg_token is not None)
        tokens = [prefix.expand(batch, -1, -1)]
        if self.reg_token is not None:
            tokens.append(self.reg_token.expand(batch, -1, -1))
        tokens.append(x.reshape(batch, height * width, dim) + tables[size])
        return torch.cat(tokens, dim=1)

    def patch_maps(self, images: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """
        Patch tokens after chosen blocks, in increasing order, and the final LayerNorm, as maps.

        From float (B, 3, H, W), RGB, normalised with :attr:`spec`, sides multiples of 14
        (otherwise ValueError), to one float (B, D, H / 14, W / 14) map per block.
        """
        check_size(images)
        maps = self.forward_intermediates(
            images, indices=list(indices), norm=True, stop_early=True, intermediates_only=True
        )
        assert isinstance(maps, list)
        return maps

    def forward(self, images: Tensor) -> SegmentorOutput:  # type: ignore[override]
        """Describe images by :meth:`patch_maps` of the blocks of :attr:`out_indices`."""
        return SegmentorOutput(features=self.patch_maps(images, self.out_indices))


def check_size(images: Tensor, patch: int = PATCH, name: str = 'DINOv2') -> None:
    """Raise ValueError unless `images` is (B, 3, H, W) with sides multiples of `patch` pixels."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f'expected images (B, 3, H, W), got {tuple(images.shape)}')
    height, width = images.shape[2:]
    if height % patch or width % patch or not height or not width:
        raise ValueError(
            f'{name} needs a height and width that are multiples of {patch} pixels, '
            f'got {height} x {width}'
        )


def chosen_blocks(indices: Sequence[int] | None, depth: int) -> list[int]:
    """Blocks whose output is a feature map, by default the last four. Raises ValueError."""
    chosen = list(range(depth)[-4:] if indices is None else indices)
    if not set(chosen) <= set(range(depth)):
        raise ValueError(f'out_indices: expected 0..{depth - 1}, got {chosen}')
    return chosen
