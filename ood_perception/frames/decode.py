# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
ROS images in: sensor_msgs Image and CompressedImage to uint8 (H, W, 3) RGB arrays.

Everything a camera can get wrong ends in one exception, :class:`BadImage`, whose text says what
came and what would be right. Conversions follow the definitions in
``sensor_msgs/image_encodings.hpp``; nothing here needs rclpy, so it also serves bag evaluation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.colour import ENCODINGS as DEVICE_ENCODINGS
from ood_perception.frames.colour import RawFrame

MIN_SIDE = 16
"""Pixels; a smaller image cannot hold an object that the networks could see."""

MAX_PIXELS = 16_000_000
"""Default upper bound of an image's pixels (4K has 8.3 million)."""

Rgb = NDArray[np.uint8]
Warn = Callable[[str], None]


class BadImage(ValueError):
    """A message that holds no usable image; the text says why and what to do."""


# encoding -> (bytes per channel, channels, OpenCV conversion to RGB or None)
_INTERLEAVED: dict[str, tuple[int, int, int | None]] = {
    'rgb8': (1, 3, None),
    'bgr8': (1, 3, cv2.COLOR_BGR2RGB),
    '8UC3': (1, 3, cv2.COLOR_BGR2RGB),
    'rgba8': (1, 4, cv2.COLOR_RGBA2RGB),
    'bgra8': (1, 4, cv2.COLOR_BGRA2RGB),
    '8UC4': (1, 4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, 1, cv2.COLOR_GRAY2RGB),
    '8UC1': (1, 1, cv2.COLOR_GRAY2RGB),
    'rgb16': (2, 3, None),
    'bgr16': (2, 3, cv2.COLOR_BGR2RGB),
    '16UC3': (2, 3, cv2.COLOR_BGR2RGB),
    'rgba16': (2, 4, cv2.COLOR_RGBA2RGB),
    'bgra16': (2, 4, cv2.COLOR_BGRA2RGB),
    'mono16': (2, 1, cv2.COLOR_GRAY2RGB),
    '16UC1': (2, 1, cv2.COLOR_GRAY2RGB),
    '32FC1': (4, 1, cv2.COLOR_GRAY2RGB),
    # ROS names the pattern by its first row, OpenCV by the second row from the second column.
    'bayer_rggb8': (1, 1, cv2.COLOR_BayerBG2RGB),
    'bayer_bggr8': (1, 1, cv2.COLOR_BayerRG2RGB),
    'bayer_gbrg8': (1, 1, cv2.COLOR_BayerGR2RGB),
    'bayer_grbg8': (1, 1, cv2.COLOR_BayerGB2RGB),
    'yuv422': (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': (1, 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': (1, 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': (1, 2, cv2.COLOR_YUV2RGB_YUY2),
}
_SEMI_PLANAR = {'nv12': cv2.COLOR_YUV2RGB_NV12, 'nv21': cv2.COLOR_YUV2RGB_NV21}

ENCODINGS = (*_INTERLEAVED, *_SEMI_PLANAR)
"""Encodings of sensor_msgs/Image that :func:`decode_raw` understands."""


def decode(message: Any, max_pixels: int = MAX_PIXELS, warn: Warn | None = None) -> Rgb:
    """
    Decode a sensor_msgs Image or CompressedImage; see :func:`decode_raw` and the other.

    Raises:
        BadImage: the message holds no usable image.

    """
    if hasattr(message, 'encoding'):
        return decode_raw(message, max_pixels, warn)
    return decode_compressed(message, max_pixels)


def decode_raw(message: Any, max_pixels: int = MAX_PIXELS, warn: Warn | None = None) -> Rgb:
    """
    Decode a sensor_msgs/Image.

    Row padding (`step`), `is_bigendian` and a missing padding of the last row are honoured.
    16-bit images keep their upper byte, except 16UC1 and 32FC1 which carry no fixed range: 32FC1
    within 0..1 is taken as such, everything else is stretched from its minimum to its maximum.

    Args:
        message: the sensor_msgs/Image (any object with its fields).
        max_pixels: larger images are refused.
        warn: is told what was odd about an image that could still be used.

    Returns:
        uint8 (H, W, 3) RGB. For unpadded rgb8 a view of the message's own bytes, not a copy.

    Raises:
        BadImage: unknown encoding, a size that cannot be, too few bytes, nothing finite.

    """
    height, width = int(message.height), int(message.width)
    encoding = str(message.encoding).strip()
    name = encoding if encoding in _INTERLEAVED else encoding.lower()
    _check_size(height, width, max_pixels)
    data = np.frombuffer(message.data, np.uint8)
    if name in _SEMI_PLANAR:
        _check_even(name, height, width)
        rows = _rows(data, height * 3 // 2, width, int(message.step))
        return _rgb(rows, _SEMI_PLANAR[name])
    if name not in _INTERLEAVED:
        raise BadImage(
            f'unknown encoding {encoding[:40]!r}; this node reads {", ".join(ENCODINGS)}'
        )
    _check_even(name, height, width)
    itemsize, channels, conversion = _INTERLEAVED[name]
    rows = _rows(data, height, width * itemsize * channels, int(message.step))
    if itemsize == 1:
        shape = (height, width, channels) if channels > 1 else (height, width)
        image = _split(rows, shape)
    else:
        kind = ('>' if message.is_bigendian else '<') + ('f4' if name == '32FC1' else 'u2')
        values = np.ascontiguousarray(rows).view(kind).reshape(height, width, channels)
        values = values[..., 0] if channels == 1 else values
        image = _to_8_bit(values, stretch=name in ('16UC1', '32FC1'), warn=warn)
    if conversion is None:
        return np.ascontiguousarray(image)
    return _rgb(image, conversion)


def decode_compressed(message: Any, max_pixels: int = MAX_PIXELS) -> Rgb:
    """
    Decode a sensor_msgs/CompressedImage that holds a JPEG or a PNG.

    The file's own first bytes decide what it is, since drivers disagree about `format`
    (``rgb8; jpeg compressed bgr8``, ``jpeg``, ``jpg``, ``png``).

    Args:
        message: the sensor_msgs/CompressedImage (any object with its fields).
        max_pixels: larger images are refused before they are decoded.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        BadImage: neither JPEG nor PNG, cut off, damaged, or of a size that cannot be.

    """
    data = bytes(message.data)
    form = str(message.format)[:60]
    if 'compressedDepth' in form:
        raise BadImage(f'format {form!r} is a depth image, not a camera picture')
    if data[:2] == b'\xff\xd8':
        height, width = _jpeg_size(data)
    elif data[:8] == b'\x89PNG\r\n\x1a\n':
        height, width = _png_size(data)
    else:
        raise BadImage(f'{len(data)} bytes of format {form!r} are neither JPEG nor PNG')
    _check_size(height, width, max_pixels)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadImage(f'damaged image of format {form!r}: {error.err}') from error
    if image is None:
        raise BadImage(f'damaged image of format {form!r} ({len(data)} bytes)')
    return _rgb(image, cv2.COLOR_BGR2RGB)


def raw_frame(message: Any, max_pixels: int = MAX_PIXELS) -> RawFrame | None:
    """
    View a sensor_msgs/Image as bytes that a GPU converts itself, or None where it cannot.

    Args:
        message: the sensor_msgs/Image (any object with its fields).
        max_pixels: larger images are refused.

    Raises:
        BadImage: as :func:`decode_raw`.

    """
    encoding = str(getattr(message, 'encoding', '')).strip()
    if encoding not in DEVICE_ENCODINGS:
        return None
    height, width, step = int(message.height), int(message.width), int(message.step)
    _check_size(height, width, max_pixels)
    _check_even(encoding, height, width)
    data = np.frombuffer(message.data, np.uint8)
    raw = RawFrame(data, height, width, step, encoding)
    itemsize, channels, _ = _INTERLEAVED.get(encoding, (1, 1, None))
    _rows(data, raw.rows, width * itemsize * channels, step)
    return raw


def stamp_ns(header: Any) -> int:
    """Nanoseconds since the epoch of a std_msgs/Header's stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if min(height, width) < MIN_SIDE:
        raise BadImage(f'image of {width}x{height}; the smallest is {MIN_SIDE}x{MIN_SIDE}')
    if height * width > max_pixels:
        raise BadImage(
            f'image of {width}x{height} has more than {max_pixels / 1e6:g} megapixels; '
            'scale it down in the driver or raise the parameter max_megapixels'
        )


def _check_even(name: str, height: int, width: int) -> None:
    """Pixels share their colour with the next one, and with nv12 and nv21 with those below."""
    if name in _SEMI_PLANAR and (height % 2 or width % 2):
        raise BadImage(f'{name} needs even sides, got {width}x{height}')
    if name in ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv') and width % 2:
        raise BadImage(f'{name} needs an even width, got {width}')


def _rows(data: NDArray[np.uint8], count: int, row: int, step: int) -> NDArray[np.uint8]:
    """View of `count` rows of `row` bytes that start every `step` bytes."""
    if step < row:
        raise BadImage(f'step {step} is smaller than a row of {row} bytes')
    # Some drivers leave out the padding of the last row.
    need = (count - 1) * step + row
    if data.size < need:
        raise BadImage(f'truncated: {data.size} bytes of {need} (step {step}, {count} rows)')
    return np.lib.stride_tricks.as_strided(data, (count, row), (step, 1))


def _rgb(image: NDArray[Any], conversion: int) -> Rgb:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), conversion), np.uint8)


def _split(rows: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """View of (H, W*C) rows as (H, W, C) without a copy, whatever the padding."""
    if len(shape) == 2:
        return rows
    strides = (rows.strides[0], shape[2], 1)
    return np.lib.stride_tricks.as_strided(rows, shape, strides)


def _to_8_bit(values: NDArray[Any], stretch: bool, warn: Warn | None) -> NDArray[np.uint8]:
    if not stretch:
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind == 'u':
        low, high = float(values.min()), float(values.max())
    else:
        finite = np.isfinite(values)
        bad = values.size - int(np.count_nonzero(finite))
        if bad == values.size:
            raise BadImage('32FC1 image without one finite value')
        if bad:
            if warn is not None:
                warn(f'{bad} of {values.size} values of a 32FC1 image are NaN or infinite')
            values = np.where(finite, values, values[finite].min())
        low, high = float(values.min()), float(values.max())
        if low >= 0.0 and high <= 1.0:
            low, high = 0.0, 1.0
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.clip(scaled + 0.5, 0, 255).astype(np.uint8)


def _png_size(data: bytes) -> tuple[int, int]:
    if len(data) < 33 or data[12:16] != b'IHDR':
        raise BadImage('PNG without a header')
    if data.rfind(b'IEND', 33) < 0:
        raise BadImage(f'PNG is cut off after {len(data)} bytes')
    width, height = struct.unpack('>II', data[16:24])
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Size by the frame header; decoders fill a cut-off scan with grey, so its end is checked."""
    position, size = 2, None
    while position + 4 <= len(data):
        marker, length = data[position + 1], struct.unpack_from('>H', data, position + 2)[0]
        if data[position] != 0xFF:
            raise BadImage('damaged JPEG header')
        if marker == 0xFF:  # a fill byte before a marker
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if position + 9 > len(data):
                break
            size = struct.unpack_from('>HH', data, position + 5)
        if marker == 0xDA:
            if size is None or data.rfind(b'\xff\xd9', position) < 0:
                break
            return size
        position += 2 + max(length, 2)
    raise BadImage(f'JPEG is cut off after {len(data)} bytes')
