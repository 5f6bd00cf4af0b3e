# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
DCNv3: the deformable operator of InternImage, in plain PyTorch and in bounded memory.

Paper: Wang et al., "InternImage: Exploring Large-Scale Vision Foundation Models with Deformable
Convolutions", CVPR 2023, eq. 2. Layout is NHWC, as in the official operator.

:func:`dcnv3` chooses an implementation from `IMPLEMENTATIONS`: the first whose `supports` says
yes. A faster kernel is one entry put at the front of that list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.models import dcnv3_cpu
from ood_perception.models.dcnv3_geometry import Geometry, centres


class Implementation(NamedTuple):
    """
    One way to compute the operator.

    Attributes:
        name: for people and benchmarks.
        supports: `(value, offset, mask, geometry) -> bool`, whether it can be used here and now.
        function: `(value, offset, mask, geometry) -> output`, shapes as in :func:`dcnv3`.
    """

    name: str
    supports: Callable[[Tensor, Tensor, Tensor, Geometry], bool]
    function: Callable[[Tensor, Tensor, Tensor, Geometry], Tensor]


def sample_point_by_point(value: Tensor, offset: Tensor, mask: Tensor, at: Geometry) -> Tensor:
    """
    Accumulate one bilinear sample per point: the memory of one feature map, on any device.

    Coordinates and sums are float32 whatever the dtype of the inputs, since half precision cannot
    hold the pixel coordinates of a large image.
    """
    batch, height, width, channels = value.shape
    rows, columns = at.output_size(height, width)
    groups, count = at.groups, at.kernel_size**2
    maps = value.float().view(batch, height, width, groups, channels // groups)
    maps = maps.permute(0, 3, 4, 1, 2).reshape(batch * groups, -1, height, width)

    def by_group(tensor: Tensor, last: int) -> Tensor:
        tensor = tensor.view(batch, rows, columns, groups, count, last)
        tensor = tensor.permute(4, 0, 3, 1, 2, 5)
        return tensor.reshape(count, batch * groups, rows, columns, last)

    offsets, weights = by_group(offset, 2), by_group(mask, 1)
    centre_x, centre_y = centres(rows, columns, at, value.device).unbind(-1)
    total = torch.zeros_like(maps[..., :1, :1]).expand(-1, -1, rows, columns)
    # Constants stay Python numbers: as tensors they would be copied to the device each time.
    for k, (kx, ky) in enumerate(at.points()):
        dx, dy = offsets[k].float().unbind(-1)
        x = centre_x + at.offset_scale * (kx + dx)
        y = centre_y + at.offset_scale * (ky + dy)
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        sampled = F.grid_sample(maps, grid, 'bilinear', 'zeros', align_corners=False)
        total = torch.addcmul(total, sampled, weights[k].float().squeeze(-1).unsqueeze(1))
    total = total.view(batch, channels, rows, columns)
    return total.permute(0, 2, 3, 1).to(value.dtype)


def sample_at_once(value: Tensor, offset: Tensor, mask: Tensor, at: Geometry) -> Tensor:
    """
    Sample all points by one operator: a small graph for engines that compile it.

    It takes K times the memory of :func:`sample_point_by_point`, whose numbers it gives.
    """
    batch, height, width, channels = value.shape
    rows, columns = at.output_size(height, width)
    groups, count = at.groups, at.kernel_size**2
    maps = value.float().view(batch, height, width, groups, channels // groups)
    maps = maps.permute(0, 3, 4, 1, 2).reshape(batch * groups, -1, height, width)
    offset = offset.float().view(batch, rows, columns, groups, count, 2)
    offset = offset.permute(0, 3, 4, 1, 2, 5).reshape(batch * groups, count * rows, columns, 2)
    regular, step = _regular_grid(height, width, at)
    grid = regular.to(value.device) + step.to(value.device) * offset
    sampled = F.grid_sample(maps, grid, 'bilinear', 'zeros', align_corners=False)
    sampled = sampled.view(batch * groups, channels // groups, count, rows, columns)
    weights = mask.float().view(batch, rows, columns, groups, count).permute(0, 3, 4, 1, 2)
    weights = weights.reshape(batch * groups, 1, count, rows, columns)
    total = (sampled * weights).sum(2).view(batch, channels, rows, columns)
    return total.permute(0, 2, 3, 1).to(value.dtype)


def _regular_grid(height: int, width: int, at: Geometry) -> tuple[Tensor, Tensor]:
    """
    Places of all points without offsets, and how far an offset of one pixel moves them.

    Computed by numpy, so that an exported graph holds two constants for each layer.

    Returns:
        float32 (1, K * rows, columns, 2) and (2,), both for `grid_sample`: -1..1 across the map.
    """
    rows, columns = at.output_size(height, width)
    first = at.dilation * (at.kernel_size - 1) // 2 - at.padding
    kx, ky = np.array(at.points()).T[:, :, None, None]
    x = np.arange(columns)[None, None] * at.stride + first + at.offset_scale * kx
    y = np.arange(rows)[None, :, None] * at.stride + first + at.offset_scale * ky
    pixels = np.stack(np.broadcast_arrays(x, y), axis=-1)
    size = np.array([width, height])
    grid = ((2 * pixels + 1) / size - 1).reshape(1, -1, columns, 2)
    step = 2 * at.offset_scale / size
    return torch.from_numpy(grid.astype(np.float32)), torch.from_numpy(step.astype(np.float32))


def _exported(*_: object) -> bool:
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def _triton_supports(value: Tensor, offset: Tensor, mask: Tensor, at: Geometry) -> bool:
    if not value.is_cuda:
        return False
    try:
        from ood_perception.models import dcnv3_triton
    except ImportError:  # a GPU build of torch without Triton, as on some robots
        return False
    return dcnv3_triton.supports(value, offset, mask, at)


def _triton(value: Tensor, offset: Tensor, mask: Tensor, at: Geometry) -> Tensor:
    from ood_perception.models.dcnv3_triton import sample_with_triton

    return sample_with_triton(value, offset, mask, at)


IMPLEMENTATIONS: list[Implementation] = [
    Implementation('at_once', _exported, sample_at_once),
    Implementation('triton', _triton_supports, _triton),
    Implementation('table', dcnv3_cpu.supports, dcnv3_cpu.sample_from_table),
    Implementation('grid_sample', lambda *_: True, sample_point_by_point),
]
"""Tried in order; the last one supports everything."""


def dcnv3(
    value: Tensor,
    offset: Tensor,
    mask: Tensor,
    groups: int,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int = 1,
    dilation: int = 1,
    offset_scale: float = 1.0,
) -> Tensor:
    """
    Sum K bilinear samples around each pixel, each group at its own places with its own weights.

    With point k at (kx, ky) of the regular grid, y fastest::

        px = ox * stride - padding + dilation * (kernel_size - 1) / 2 + s * (kx + dx)
        py = oy * stride - padding + dilation * (kernel_size - 1) / 2 + s * (ky + dy)
        out[oy, ox, g] = sum_k mask[oy, ox, g, k] * bilinear(value[..., g], py, px)

    where s is `offset_scale` and the value outside of the image is 0.

    Args:
        value: float (N, H, W, C), C divisible by `groups`.
        offset: float (N, H', W', groups * K * 2), last (dx, dy) in pixels.
        mask: float (N, H', W', groups * K), the weights, used as they are.
        groups: channel groups.
        kernel_size: side of the kernel, odd; K = kernel_size ** 2.
        stride: input pixels between output pixels.
        padding: pixels of zeros around the input.
        dilation: spacing of the regular grid.
        offset_scale: factor of the regular grid and of the offsets.

    Returns:
        (N, H', W', C) in the dtype of `value`.

    Raises:
        ValueError: shapes that do not fit together.
    """
    at = Geometry(kernel_size, stride, padding, dilation, groups, offset_scale)
    _check(value, offset, mask, at)
    for implementation in IMPLEMENTATIONS:
        if implementation.supports(value, offset, mask, at):
            return implementation.function(value, offset, mask, at)
    raise RuntimeError('no DCNv3 implementation supports these inputs')


def _check(value: Tensor, offset: Tensor, mask: Tensor, at: Geometry) -> None:
    if at.kernel_size % 2 == 0:
        raise ValueError(f'DCNv3: expected an odd kernel_size, got {at.kernel_size}')
    if value.ndim != 4 or value.shape[-1] % at.groups:
        raise ValueError(
            f'DCNv3: expected value (N, H, W, C) with C divisible by {at.groups} groups, '
            f'got {tuple(value.shape)}'
        )
    batch, height, width, _ = value.shape
    points = at.groups * at.kernel_size**2
    expected = (batch, *at.output_size(height, width))
    for name, tensor, last in (('offset', offset, 2 * points), ('mask', mask, points)):
        if tuple(tensor.shape) != (*expected, last):
            raise ValueError(
                f'DCNv3: expected {name} {(*expected, last)}, got {tuple(tensor.shape)}'
            )


class ToChannelsLast(nn.Module):
    """(N, C, H, W) -> (N, H, W, C); holds the slot that it has in the official key names."""

    def forward(self, x: Tensor) -> Tensor:
        """Permute a float (N, C, H, W) map."""
        return x.permute(0, 2, 3, 1)


class DCNv3(nn.Module):
    """
    The layer around the operator: projections in and out, and the branch that predicts the points.

    Args:
        channels: of input and output.
        groups: channel groups.
        dw_kernel_size: side of the depthwise convolution in front of offsets and weights.
        offset_scale: see :func:`dcnv3`.
        center_feature_scale: mix the sampled value with the pixel's own, weights per group (H, G).
        kernel_size: side of the sampled kernel.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        dw_kernel_size: int = 3,
        offset_scale: float = 1.0,
        center_feature_scale: bool = False,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f'DCNv3: {channels} channels do not split into {groups} groups')
        self.groups, self.kernel_size, self.offset_scale = groups, kernel_size, offset_scale
        points = groups * kernel_size**2
        self.dw_conv = nn.Sequential(
            nn.Conv2d(
                channels, channels, dw_kernel_size, padding=dw_kernel_size // 2, groups=channels
            ),
            nn.Sequential(ToChannelsLast(), nn.LayerNorm(channels, eps=1e-6)),
            nn.GELU(),
        )
        self.offset = nn.Linear(channels, 2 * points)
        self.mask = nn.Linear(channels, points)
        self.input_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self.center_feature_scale = center_feature_scale
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(groups, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(groups))
        # A regular grid with equal weights to begin with, as the paper does.
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map float (N, H, W, C) to float (N, H, W, C)."""
        batch, height, width, channels = x.shape
        value = self.input_proj(x)
        query = self.dw_conv(x.permute(0, 3, 1, 2))
        offset = self.offset(query)
        mask = self.mask(query).view(batch, height, width, self.groups, -1)
        # float32: autocast would leave the weights in half precision on some devices.
        mask = mask.float().softmax(dim=-1).to(value.dtype).flatten(3)
        out = dcnv3(
            value,
            offset,
            mask,
            groups=self.groups,
            kernel_size=self.kernel_size,
            padding=self.kernel_size // 2,
            offset_scale=self.offset_scale,
        )
        if self.center_feature_scale:
            scale = F.linear(
                query, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias
            )
            scale = scale.sigmoid().repeat_interleave(channels // self.groups, dim=-1)
            out = out * (1 - scale) + value * scale
        return self.output_proj(out)
