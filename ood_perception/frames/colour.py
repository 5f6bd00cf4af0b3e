# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Raw camera bytes to RGB on the device.

A camera's own bytes are smaller than RGB (YUY2 two bytes a pixel, NV12 one and a half, Bayer one),
so on a GPU they are uploaded as they are and converted there. Encodings are those of ROS
(sensor_msgs/image_encodings.hpp); YUV is BT.601 with video range, as OpenCV converts it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RawFrame:
    """A frame as the camera sent it."""

    data: Any  # uint8, at least rows * step values, a numpy array or a tensor
    height: int  # pixels
    width: int  # pixels
    step: int  # bytes a row, at least what the encoding needs
    encoding: str  # one of `ENCODINGS`

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (H, W, 3) of the RGB image that it becomes."""
        return self.height, self.width, 3

    @property
    def rows(self) -> int:
        """Rows of `step` bytes."""
        return self.height * 3 // 2 if self.encoding in ('nv12', 'nv21') else self.height


def check_raw(raw: RawFrame) -> None:
    """Raise ValueError when a raw frame cannot be what it says it is."""
    if raw.encoding not in ENCODINGS:
        raise ValueError(f'encoding: expected one of {", ".join(ENCODINGS)}, got {raw.encoding!r}')
    if raw.height < 1 or raw.width < 1:
        raise ValueError(f'frame: expected at least 1x1 pixels, got {raw.width}x{raw.height}')
    planar = raw.encoding in ('nv12', 'nv21')
    if (raw.width % 2 and (planar or raw.encoding in _PACKED_YUV)) or (raw.height % 2 and planar):
        raise ValueError(f'{raw.encoding} needs even sides, got {raw.width}x{raw.height}')
    row = raw.width * _BYTES.get(raw.encoding, 1)
    if raw.step < row:
        raise ValueError(f'step: expected at least {row} bytes, got {raw.step}')
    need = (raw.rows - 1) * raw.step + row
    if len(raw.data) < need:
        raise ValueError(f'data: expected at least {need} bytes, got {len(raw.data)}')


def to_rgb(data: Tensor, raw: RawFrame) -> Tensor:
    """Convert uint8 (n,) bytes of a checked frame to uint8 (3, H, W) RGB on any device."""
    row = raw.width * _BYTES.get(raw.encoding, 1)
    rows = torch.as_strided(
        data[: (raw.rows - 1) * raw.step + row], (raw.rows, row), (raw.step, 1)
    )
    return _CONVERSIONS[raw.encoding](rows, raw.height, raw.width)


def _channels(*order: int) -> Callable[[Tensor, int, int], Tensor]:
    def convert(rows: Tensor, height: int, width: int) -> Tensor:
        pixels = rows.reshape(height, width, -1).permute(2, 0, 1)
        return torch.stack([pixels[i] for i in order])

    return convert


def _packed_yuv(y: int, u: int, v: int) -> Callable[[Tensor, int, int], Tensor]:
    def convert(rows: Tensor, height: int, width: int) -> Tensor:
        pairs = rows.reshape(height, width // 2, 4)
        luma = torch.stack([pairs[..., y], pairs[..., y + 2]], -1).reshape(height, width)
        chroma = [pairs[..., i].repeat_interleave(2, 1) for i in (u, v)]
        return _yuv_to_rgb(luma, *chroma)

    return convert


def _semi_planar(u: int) -> Callable[[Tensor, int, int], Tensor]:
    def convert(rows: Tensor, height: int, width: int) -> Tensor:
        pairs = rows[height:].reshape(height // 2, width // 2, 2)
        wide = pairs.repeat_interleave(2, 0).repeat_interleave(2, 1)
        return _yuv_to_rgb(rows[:height], wide[..., u], wide[..., 1 - u])

    return convert


def _yuv_to_rgb(y: Tensor, u: Tensor, v: Tensor) -> Tensor:
    luma = 1.164 * (y.float() - 16).clamp_min(0)
    cb, cr = u.float() - 128, v.float() - 128
    rgb = torch.stack([luma + 1.596 * cr, luma - 0.813 * cr - 0.391 * cb, luma + 2.018 * cb])
    return rgb.round_().clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=16)
def _bayer_kernel(device: torch.device) -> Tensor:
    # kept on the device: making it there anew would stall it at every frame
    box, cross = [[1, 2, 1], [2, 4, 2], [1, 2, 1]], [[0, 1, 0], [1, 4, 1], [0, 1, 0]]
    return torch.tensor([[box], [cross], [box]], dtype=torch.float32, device=device)


def _bayer(red_row: int, red_column: int) -> Callable[[Tensor, int, int], Tensor]:
    """Bilinear demosaicing: each colour is the mean of its nearest samples."""

    def convert(rows: Tensor, height: int, width: int) -> Tensor:
        image = rows.float()[None, None]
        y = torch.arange(height, device=rows.device).view(-1, 1) % 2
        x = torch.arange(width, device=rows.device).view(1, -1) % 2
        red = ((y == red_row) & (x == red_column)).float()
        blue = ((y != red_row) & (x != red_column)).float()
        masks = torch.stack([red, 1 - red - blue, blue])[None]
        kernel = _bayer_kernel(rows.device)
        total = F.conv2d(image * masks, kernel, padding=1, groups=3)
        weight = F.conv2d(masks, kernel, padding=1, groups=3)
        # a sample is kept as it is; only the two missing colours are interpolated
        rgb = torch.where(masks > 0, image, total / weight.clamp_min(1))[0]
        return rgb.round_().clamp_(0, 255).to(torch.uint8)

    return convert


_PACKED_YUV = dict.fromkeys(('yuyv', 'yuv422_yuy2', 'uyvy', 'yuv422'), 2)
_BYTES = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, **_PACKED_YUV}
_CONVERSIONS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    'rgb8': _channels(0, 1, 2),
    'bgr8': _channels(2, 1, 0),
    'rgba8': _channels(0, 1, 2),
    'bgra8': _channels(2, 1, 0),
    'mono8': _channels(0, 0, 0),
    'yuyv': _packed_yuv(0, 1, 3),
    'yuv422_yuy2': _packed_yuv(0, 1, 3),
    'uyvy': _packed_yuv(1, 0, 2),
    'yuv422': _packed_yuv(1, 0, 2),
    'nv12': _semi_planar(0),
    'nv21': _semi_planar(1),
    'bayer_rggb8': _bayer(0, 0),
    'bayer_bggr8': _bayer(1, 1),
    'bayer_grbg8': _bayer(0, 1),
    'bayer_gbrg8': _bayer(1, 0),
}
ENCODINGS = tuple(_CONVERSIONS)  # encodings that :func:`to_rgb` converts
