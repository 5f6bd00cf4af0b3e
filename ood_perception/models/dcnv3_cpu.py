# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
DCNv3 on the CPU: an output is a weighted sum of 4 K rows of a table, which torch sums fast.

A pixel's channels of one group lie together in memory (NHWC), so that each corner of each bilinear
sample is one short contiguous read; `grid_sample` reads every channel from elsewhere. The function
in `models.dcnv3` is its oracle.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.models.dcnv3_geometry import Geometry, centres

SUMS_AT_ONCE = 1 << 14
"""Output pixels x groups whose indices and weights are in memory together: about 20 MB."""


def sample_from_table(value: Tensor, offset: Tensor, mask: Tensor, at: Geometry) -> Tensor:
    """
    Compute DCNv3 in strips of output rows.

    Args:
        value: float32 (N, H, W, C).
        offset: float32 (N, H', W', groups * K * 2).
        mask: float32 (N, H', W', groups * K).
        at: where the points lie.

    Returns:
        float32 (N, H', W', C).
    """
    batch, height, width, channels = value.shape
    rows, columns = at.output_size(height, width)
    groups, count = at.groups, at.kernel_size**2
    table = value.reshape(batch * height * width * groups, channels // groups)
    offset = offset.view(batch, rows, columns, groups, count, 2)
    mask = mask.view(batch, rows, columns, groups, count)
    centre = centres(rows, columns, at, value.device)
    grid = torch.tensor(at.points())
    # The first row of the table for each image and group.
    first = torch.arange(batch, dtype=torch.int32).mul_(height * width * groups)
    first = first.view(-1, 1, 1, 1, 1) + torch.arange(groups, dtype=torch.int32).view(-1, 1)
    output = value.new_empty(batch, rows, columns, channels)
    strip = max(1, SUMS_AT_ONCE // (batch * columns * groups))
    for top in range(0, rows, strip):
        part = slice(top, top + strip)
        pixel = centre[part, :, None, None] + at.offset_scale * (grid + offset[:, part])
        x, left, right = _corners(pixel[..., 0], width)
        y, above, below = _corners(pixel[..., 1], height)
        weight = mask[:, part]
        above, below = weight * above, weight * below
        weights = torch.stack((above * left, above * right, below * left, below * right), dim=-1)
        columns_of = x.clamp(0, width - 1) * groups, (x + 1).clamp(0, width - 1) * groups
        rows_of = [
            r * (width * groups) + first
            for r in (y.clamp(0, height - 1), (y + 1).clamp(0, height - 1))
        ]
        index = torch.stack([r + c for r in rows_of for c in columns_of], dim=-1)
        sums = F.embedding_bag(
            index.view(-1, 4 * count),
            table,
            mode='sum',
            per_sample_weights=weights.view(-1, 4 * count),
        )
        output[:, part] = sums.view(batch, -1, columns, channels)
    return output


def _corners(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    # int32 index of the pixel before each position, and the weights of it and of the next one,
    # zero where that pixel lies outside. The clamp changes nothing inside and keeps any finite
    # position within int32.
    position = position.clamp(-2, size + 1)
    before = position.floor()
    after = position - before
    index = before.to(torch.int32)
    inside = (index >= 0) & (index < size)
    next_inside = (index >= -1) & (index < size - 1)
    return index, (1 - after) * inside, after * next_inside


def supports(value: Tensor, offset: Tensor, mask: Tensor, at: Geometry) -> bool:
    """Whether this can be used: float32 on the CPU, without gradients, not while being traced."""
    gradients = torch.is_grad_enabled() and any(t.requires_grad for t in (value, offset, mask))
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    small = value.numel() < 2**31  # indices are int32
    plain = all(t.dtype == torch.float32 and t.device.type == 'cpu' for t in (value, offset, mask))
    return plain and small and not gradients and not traced
