# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Where DCNv3 samples: shared by the operator in PyTorch, its table for CPUs and its kernel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Geometry(NamedTuple):
    """
    Where the K = kernel_size ** 2 points of each output pixel lie.

    Attributes:
        kernel_size: side of the square kernel, odd.
        stride: input pixels between two output pixels.
        padding: pixels added on each side.
        dilation: input pixels between two points of the regular grid.
        groups: channel groups, each with its own offsets and weights.
        offset_scale: multiplies the regular grid AND the learnt offset.
    """

    kernel_size: int
    stride: int
    padding: int
    dilation: int
    groups: int
    offset_scale: float

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for an input of (height, width) pixels."""
        extent = self.dilation * (self.kernel_size - 1) + 1
        return (
            (height + 2 * self.padding - extent) // self.stride + 1,
            (width + 2 * self.padding - extent) // self.stride + 1,
        )

    def points(self) -> list[tuple[float, float]]:
        """Regular grid (kx, ky) of each point in pixels, x-major: y runs fastest."""
        half = (self.kernel_size - 1) // 2
        steps = [self.dilation * (i - half) for i in range(self.kernel_size)]
        return [(float(kx), float(ky)) for kx in steps for ky in steps]


def centres(rows: int, columns: int, at: Geometry, device: torch.device) -> Tensor:
    """Centre of the kernel at each output pixel: float32 (rows, columns, 2), (x, y) in pixels."""
    first = at.dilation * (at.kernel_size - 1) // 2 - at.padding
    y = torch.arange(rows, dtype=torch.float32, device=device) * at.stride + first
    x = torch.arange(columns, dtype=torch.float32, device=device) * at.stride + first
    return torch.stack(torch.meshgrid(x, y, indexing='xy'), dim=-1)
