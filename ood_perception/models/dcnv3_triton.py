# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
DCNv3 as one Triton kernel: forward only, any float dtype, coordinates and sums in float32.

Each program sums the K samples of a block of output pixels for one channel group, so that values,
offsets and weights are read once and nothing but the output is written. The function in
`models.dcnv3` is its oracle.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _corner(pointer, y, x, height, width, channels, column, weight, wanted):  # type: ignore[no-untyped-def]
    """Weighted value at integer pixel (y, x) of each row of the block; 0 outside of the image."""
    inside = wanted & ((y >= 0) & (y < height) & (x >= 0) & (x < width))[:, None]
    place = (y * width + x) * channels
    sample = tl.load(pointer + place[:, None] + column[None, :], mask=inside, other=0.0)
    return sample.to(tl.float32) * weight[:, None]


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    value, offset, mask, output,
    height, width, channels, groups, scale,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of pixels of one image for one group of WIDTH channels (PADDED: power of two)."""
    group = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = pixel < height * width
    lane = tl.arange(0, PADDED)
    # one sum, whose lanes lie side by side: Triton then loads 16 bytes at a time
    column = group * WIDTH + lane
    wanted = valid[:, None] & (lane < WIDTH)[None, :]
    centre_y = (pixel // width).to(tl.float32)
    centre_x = (pixel % width).to(tl.float32)
    source = value + image * height * width * channels
    entry = ((image * height * width + pixel) * groups + group) * 9
    total = tl.zeros([BLOCK, PADDED], dtype=tl.float32)
    # A loop: unrolled, the loads of all points take up to 140 registers, and few threads fit.
    for k in range(9):
        # x-major: y runs fastest over the points
        dx = tl.load(offset + (entry + k) * 2, mask=valid, other=0.0).to(tl.float32)
        dy = tl.load(offset + (entry + k) * 2 + 1, mask=valid, other=0.0).to(tl.float32)
        weight = tl.load(mask + entry + k, mask=valid, other=0.0).to(tl.float32)
        x = centre_x + scale * (k // 3 - 1 + dx)
        y = centre_y + scale * (k % 3 - 1 + dy)
        # far outside is 0 anyway; the bound keeps the conversion to int32 defined
        x = tl.minimum(tl.maximum(x, -2.0), width + 1.0)
        y = tl.minimum(tl.maximum(y, -2.0), height + 1.0)
        left, top = tl.floor(x), tl.floor(y)
        right_share, bottom_share = x - left, y - top
        x0, y0 = left.to(tl.int32), top.to(tl.int32)
        total += _corner(source, y0, x0, height, width, channels, column,
                         weight * (1 - bottom_share) * (1 - right_share), wanted)  # fmt: skip
        total += _corner(source, y0, x0 + 1, height, width, channels, column,
                         weight * (1 - bottom_share) * right_share, wanted)  # fmt: skip
        total += _corner(source, y0 + 1, x0, height, width, channels, column,
                         weight * bottom_share * (1 - right_share), wanted)  # fmt: skip
        total += _corner(source, y0 + 1, x0 + 1, height, width, channels, column,
                         weight * bottom_share * right_share, wanted)  # fmt: skip
    place = (image * height * width + pixel)[:, None] * channels + column[None, :]
    tl.store(output + place, total.to(output.dtype.element_ty), mask=wanted)


def sample_with_triton(
    value: Tensor, offset: Tensor, mask: Tensor, groups: int, scale: float
) -> Tensor:
    """Compute :func:`ood_perception.models.dcnv3.dcnv3`, whose arguments it takes, on a GPU."""
    batch, height, width, channels = value.shape
    group_width = channels // groups
    output = torch.empty(value.shape, dtype=value.dtype, device=value.device)
    padded = triton.next_power_of_2(group_width)
    block = pixels(padded, value.element_size())
    grid = (triton.cdiv(height * width, block), groups, batch)
    _forward[grid](
        value.contiguous(), offset.contiguous(), mask.contiguous(), output,
        height, width, channels, groups, float(scale),
        WIDTH=group_width, PADDED=padded, BLOCK=block,
    )  # fmt: skip
    return output


def pixels(padded: int, bytes_each: int) -> int:
    """Pixels of a block, so that each of its 128 threads holds 16 bytes of one pixel."""
    return max(1, 128 * 16 // (padded * bytes_each))
