# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
DCNv3: the deformable operator of InternImage, in plain PyTorch and in bounded memory.

Paper: Wang et al., "InternImage: Exploring Large-Scale Vision Foundation Models with Deformable
Convolutions", CVPR 2023, eq. 2. Layout is NHWC, as in the official operator; the kernel is 3x3 and
the stride 1, as every InternImage has them.

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

# regular grid (x, y) of the sampled points in pixels, y fastest
POINTS = [(float(x), float(y)) for x in (-1, 0, 1) for y in (-1, 0, 1)]
# output pixels x groups whose indices and weights are in memory together: about 20 MB
SUMS_AT_ONCE = 1 << 14


class Implementation(NamedTuple):
    """One way to compute :func:`dcnv3`, whose arguments both functions take."""

    name: str
    supports: Callable[..., bool]  # whether it can be used here
    function: Callable[..., Tensor]


def sample_point_by_point(
    value: Tensor, offset: Tensor, mask: Tensor, groups: int, scale: float
) -> Tensor:
    """
    Accumulate one bilinear sample per point: the memory of one feature map, on any device.

    Coordinates and sums are float32 whatever the dtype of the inputs, since half precision cannot
    hold the pixel coordinates of a large image.
    """
    batch, height, width, channels = value.shape
    maps = _maps_of_groups(value, groups)
    offsets, weights = (
        tensor.view(batch, height, width, groups, 9, -1)
        .permute(4, 0, 3, 1, 2, 5)
        .reshape(9, batch * groups, height, width, -1)
        for tensor in (offset, mask)
    )
    pixel_x, pixel_y = pixels(height, width, value.device).unbind(-1)
    total = torch.zeros_like(maps)
    # Constants stay Python numbers: as tensors they would be copied to the device each time.
    for k, (kx, ky) in enumerate(POINTS):
        dx, dy = offsets[k].float().unbind(-1)
        x = pixel_x + scale * (kx + dx)
        y = pixel_y + scale * (ky + dy)
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        sampled = F.grid_sample(maps, grid, 'bilinear', 'zeros', align_corners=False)
        total = torch.addcmul(total, sampled, weights[k].float().squeeze(-1).unsqueeze(1))
    total = total.view(batch, channels, height, width)
    return total.permute(0, 2, 3, 1).to(value.dtype)


def sample_at_once(
    value: Tensor, offset: Tensor, mask: Tensor, groups: int, scale: float
) -> Tensor:
    """
    Sample all points by one operator: a small graph for engines that compile it.

    It takes 9 times the memory of :func:`sample_point_by_point`, whose numbers it gives.
    """
    batch, height, width, channels = value.shape
    offset = offset.float().view(batch, height, width, groups, 9, 2)
    offset = offset.permute(0, 3, 4, 1, 2, 5).reshape(batch * groups, 9 * height, width, 2)
    regular, step = _regular_grid(height, width, scale)
    grid = regular.to(value.device) + step.to(value.device) * offset
    maps = _maps_of_groups(value, groups)
    sampled = F.grid_sample(maps, grid, 'bilinear', 'zeros', align_corners=False)
    sampled = sampled.view(batch * groups, channels // groups, 9, height, width)
    weights = mask.float().view(batch, height, width, groups, 9).permute(0, 3, 4, 1, 2)
    weights = weights.reshape(batch * groups, 1, 9, height, width)
    total = (sampled * weights).sum(2).view(batch, channels, height, width)
    return total.permute(0, 2, 3, 1).to(value.dtype)


def sample_from_table(
    value: Tensor, offset: Tensor, mask: Tensor, groups: int, scale: float
) -> Tensor:
    """
    Sum 4 * 9 weighted rows of a table for each output, in strips of rows: fast on a CPU.

    A pixel's channels of one group lie together in memory (NHWC), so that each corner of each
    bilinear sample is one short contiguous read; `grid_sample` reads every channel from elsewhere.
    """
    batch, height, width, channels = value.shape
    table = value.reshape(batch * height * width * groups, channels // groups)
    offset = offset.view(batch, height, width, groups, 9, 2)
    mask = mask.view(batch, height, width, groups, 9)
    centre = pixels(height, width, value.device)
    points = torch.tensor(POINTS)
    # The first row of the table for each image and group.
    first = torch.arange(batch, dtype=torch.int32).mul_(height * width * groups)
    first = first.view(-1, 1, 1, 1, 1) + torch.arange(groups, dtype=torch.int32).view(-1, 1)
    output = torch.empty_like(value, memory_format=torch.contiguous_format)
    strip = max(1, SUMS_AT_ONCE // (batch * width * groups))
    for top in range(0, height, strip):
        part = slice(top, top + strip)
        pixel = centre[part, :, None, None] + scale * (points + offset[:, part])
        x, left, right = _corners(pixel[..., 0], width)
        y, above, below = _corners(pixel[..., 1], height)
        weight = mask[:, part]
        above, below = weight * above, weight * below
        weights = torch.stack((above * left, above * right, below * left, below * right), dim=-1)
        columns = x.clamp(0, width - 1) * groups, (x + 1).clamp(0, width - 1) * groups
        rows = [
            r * (width * groups) + first
            for r in (y.clamp(0, height - 1), (y + 1).clamp(0, height - 1))
        ]
        index = torch.stack([r + c for r in rows for c in columns], dim=-1)
        sums = F.embedding_bag(
            index.view(-1, 36), table, mode='sum', per_sample_weights=weights.view(-1, 36)
        )
        output[:, part] = sums.view(batch, -1, width, channels)
    return output


def pixels(height: int, width: int, device: torch.device) -> Tensor:
    """Places of all pixels: float32 (height, width, 2), (x, y)."""
    y = torch.arange(height, dtype=torch.float32, device=device)
    x = torch.arange(width, dtype=torch.float32, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing='xy'), dim=-1)


def _maps_of_groups(value: Tensor, groups: int) -> Tensor:
    """(N, H, W, C) -> float32 (N * groups, C / groups, H, W)."""
    return value.float().unflatten(-1, (groups, -1)).permute(0, 3, 4, 1, 2).flatten(0, 1)


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


def _regular_grid(height: int, width: int, scale: float) -> tuple[Tensor, Tensor]:
    """
    Places of all points, and how far an offset of one pixel moves them, as `grid_sample` has them.

    float32 (1, 9 * height, width, 2) and (2,), -1..1 across the map; computed by numpy, so that an
    exported graph holds two constants for each layer.
    """
    kx, ky = np.array(POINTS).T[:, :, None, None]
    x = np.arange(width)[None, None] + scale * kx
    y = np.arange(height)[None, :, None] + scale * ky
    size = np.array([width, height])
    grid = (2 * np.stack(np.broadcast_arrays(x, y), axis=-1) + 1) / size - 1
    grid, step = grid.reshape(1, -1, width, 2), 2 * scale / size
    return torch.from_numpy(grid.astype(np.float32)), torch.from_numpy(step.astype(np.float32))


def _exported(*_: object) -> bool:
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def _triton_supports(value: Tensor, offset: Tensor, *_: object) -> bool:
    gradients = torch.is_grad_enabled() and (value.requires_grad or offset.requires_grad)
    if not value.is_cuda or gradients or torch.onnx.is_in_onnx_export():
        return False
    try:
        from ood_perception.models import dcnv3_triton  # noqa: F401
    except ImportError:  # a GPU build of torch without Triton, as on some robots
        return False
    return True


def _triton(value: Tensor, offset: Tensor, mask: Tensor, groups: int, scale: float) -> Tensor:
    from ood_perception.models.dcnv3_triton import sample_with_triton

    return sample_with_triton(value, offset, mask, groups, scale)


def _table_supports(value: Tensor, offset: Tensor, mask: Tensor, *_: object) -> bool:
    inputs = (value, offset, mask)
    gradients = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    small = value.numel() < 2**31  # indices are int32
    plain = all(t.dtype == torch.float32 and t.device.type == 'cpu' for t in inputs)
    return plain and small and not gradients and not traced


IMPLEMENTATIONS: list[Implementation] = [
    Implementation('at_once', _exported, sample_at_once),
    Implementation('triton', _triton_supports, _triton),
    Implementation('table', _table_supports, sample_from_table),
    Implementation('grid_sample', lambda *_: True, sample_point_by_point),
]
"""Tried in order; the last one supports everything."""


def dcnv3(
    value: Tensor, offset: Tensor, mask: Tensor, groups: int, offset_scale: float = 1.0
) -> Tensor:
    """
    Sum 9 bilinear samples around each pixel, each group at its own places with its own weights.

    With point k at (kx, ky) of `POINTS`::

        px, py = x + s * (kx + dx), y + s * (ky + dy)
        out[y, x, g] = sum_k mask[y, x, g, k] * bilinear(value[..., g], py, px)

    where s is `offset_scale` and the value outside of the image is 0. From value float
    (N, H, W, C), offset (N, H, W, groups * 9 * 2), last (dx, dy) in pixels, and mask
    (N, H, W, groups * 9) to (N, H, W, C) in the dtype of `value`.
    """
    if value.ndim != 4 or value.shape[-1] % groups:
        raise ValueError(
            f'DCNv3: expected value (N, H, W, C) with C divisible by {groups} groups, '
            f'got {tuple(value.shape)}'
        )
    for name, tensor, last in (('offset', offset, 18 * groups), ('mask', mask, 9 * groups)):
        expected = (*value.shape[:3], last)
        if tuple(tensor.shape) != expected:
            raise ValueError(f'DCNv3: expected {name} {expected}, got {tuple(tensor.shape)}')
    arguments = (value, offset, mask, groups, offset_scale)
    chosen = next(way for way in IMPLEMENTATIONS if way.supports(*arguments))
    return chosen.function(*arguments)


class ToChannelsLast(nn.Module):
    """(N, C, H, W) -> (N, H, W, C); holds the slot that it has in the official key names."""

    def forward(self, x: Tensor) -> Tensor:
        """Permute a float (N, C, H, W) map."""
        return x.permute(0, 2, 3, 1)


class DCNv3(nn.Module):
    """
    The layer around the operator: projections in and out, and the branch that predicts the points.

    `dw_kernel_size` is the side of the depthwise convolution in front of offsets and weights;
    `center_feature_scale` mixes the sampled value with the pixel's own, weights per group (H, G).
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        dw_kernel_size: int = 3,
        offset_scale: float = 1.0,
        center_feature_scale: bool = False,
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f'DCNv3: {channels} channels do not split into {groups} groups')
        self.groups, self.offset_scale = groups, offset_scale
        self.dw_conv = nn.Sequential(
            nn.Conv2d(
                channels, channels, dw_kernel_size, padding=dw_kernel_size // 2, groups=channels
            ),
            nn.Sequential(ToChannelsLast(), nn.LayerNorm(channels, eps=1e-6)),
            nn.GELU(),
        )
        self.offset = nn.Linear(channels, 18 * groups)
        self.mask = nn.Linear(channels, 9 * groups)
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
        out = dcnv3(value, offset, mask, self.groups, self.offset_scale)
        if self.center_feature_scale:
            scale = F.linear(
                query, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias
            )
            scale = scale.sigmoid().repeat_interleave(channels // self.groups, dim=-1)
            out = out * (1 - scale) + value * scale
        return self.output_proj(out)
