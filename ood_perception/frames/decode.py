# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
ROS images in: sensor_msgs Image and CompressedImage to uint8 (H, W, 3) RGB arrays.

Everything a camera can get wrong ends in one exception, :class:`BadImage`, whose text says what
came and what would be right. Conversions follow the definitions in
``sensor_msgs/image_encodings.hpp``; nothing here needs rclpy, so it also serves bag evaluation.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.frames import bridge
from ood_perception.frames.intensity import Intensity, Warn
from ood_perception.frames.picture import (
    MAX_PIXELS,
    MIN_SIDE,
    BadImage,
    Rgb,
    check_size,
    decode_file,
    kind_of,
    to_rgb8,
)

if TYPE_CHECKING:
    from ood_perception.frames.colour import RawFrame

# encoding -> (numpy type, channels, OpenCV conversion to RGB or None); more than 8 bits are
# brought to 8 bits before the conversion.
_INTERLEAVED: dict[str, tuple[str, int, int | None]] = {
    'rgb8': ('u1', 3, None),
    'bgr8': ('u1', 3, cv2.COLOR_BGR2RGB),
    'rgba8': ('u1', 4, cv2.COLOR_RGBA2RGB),
    'bgra8': ('u1', 4, cv2.COLOR_BGRA2RGB),
    'mono8': ('u1', 1, cv2.COLOR_GRAY2RGB),
    'rgb16': ('u2', 3, None),
    'bgr16': ('u2', 3, cv2.COLOR_BGR2RGB),
    'rgba16': ('u2', 4, cv2.COLOR_RGBA2RGB),
    'bgra16': ('u2', 4, cv2.COLOR_BGRA2RGB),
    'mono16': ('u2', 1, cv2.COLOR_GRAY2RGB),
    'yuv422': ('u1', 2, cv2.COLOR_YUV2RGB_UYVY),
    'uyvy': ('u1', 2, cv2.COLOR_YUV2RGB_UYVY),
    'yuv422_yuy2': ('u1', 2, cv2.COLOR_YUV2RGB_YUY2),
    'yuyv': ('u1', 2, cv2.COLOR_YUV2RGB_YUY2),
}
# ROS names the pattern by its first row, OpenCV by the second row from the second column.
_BAYER = {
    'rggb': cv2.COLOR_BayerBG2RGB,
    'bggr': cv2.COLOR_BayerRG2RGB,
    'gbrg': cv2.COLOR_BayerGR2RGB,
    'grbg': cv2.COLOR_BayerGB2RGB,
}
for _pattern, _code in _BAYER.items():
    _INTERLEAVED[f'bayer_{_pattern}8'] = ('u1', 1, _code)
    _INTERLEAVED[f'bayer_{_pattern}16'] = ('u2', 1, _code)
# OpenCV's own names of types: one channel is grey, three are BGR, four BGRA.
for _name, _kind in (
    ('8U', 'u1'), ('8S', 'i1'), ('16U', 'u2'), ('16S', 'i2'), ('32S', 'i4'),
    ('32F', 'f4'), ('64F', 'f8'),
):  # fmt: skip
    _INTERLEAVED[f'{_name}C1'] = (_kind, 1, cv2.COLOR_GRAY2RGB)
    _INTERLEAVED[f'{_name}C3'] = (_kind, 3, cv2.COLOR_BGR2RGB)
    _INTERLEAVED[f'{_name}C4'] = (_kind, 4, cv2.COLOR_BGRA2RGB)

# YUV planes: rows of luma, then rows of interleaved chroma, as multiples of the height.
_SEMI_PLANAR = {'nv12': 1.5, 'nv21': 1.5, 'nv24': 3.0}

ENCODINGS = (*_INTERLEAVED, *_SEMI_PLANAR)  # that :func:`decode` understands

_PACKED_YUV = ('yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv')

_VIDEO = ('h264', 'h265', 'hevc', 'av1', 'vp8', 'vp9', 'mpeg4', 'theora', 'ffmpeg')


def decode(
    message: Any,
    max_pixels: int = MAX_PIXELS,
    warn: Warn = None,
    intensity: Intensity | None = None,
) -> Rgb:
    """
    Decode a sensor_msgs Image or CompressedImage to uint8 (H, W, 3) RGB; of rgb8 perhaps a view.

    `warn` is told what was odd about an image that could still be used, `intensity` is the
    stream's mapping to 8 bits, None = one for this image alone. What cannot be read is a BadImage.
    """
    function = _decode_raw if hasattr(message, 'encoding') else _decode_compressed
    return function(message, max_pixels, warn, intensity)


def _decode_raw(message: Any, max_pixels: int, warn: Warn, intensity: Intensity | None) -> Rgb:
    """Row padding (`step`), `is_bigendian` and a missing padding of the last row are honoured."""
    height, width = int(message.height), int(message.width)
    name = _known(str(message.encoding).strip())
    check_size(height, width, max_pixels)
    _check_even(name, height, width)
    if name in _SEMI_PLANAR:
        rows = _rows(message, round(height * _SEMI_PLANAR[name]), width)
        return _semi_planar(name, rows, height, width)
    kind, channels, conversion = _INTERLEAVED[name]
    stored = _stored(message, name)
    if kind == 'u1':
        image = bridge.to_rgb(message) if name in bridge.ENCODINGS else None
        if image is not None:
            return image
        image = stored
    else:
        image = _to_8_bit(stored, name, warn, intensity)
        if channels == 4:  # the mapping leaves alpha out
            conversion = {cv2.COLOR_BGRA2RGB: cv2.COLOR_BGR2RGB}.get(conversion or 0)
    if conversion is None:
        return np.ascontiguousarray(image)
    return _rgb(image, conversion)


def stored_values(message: Any) -> NDArray[Any]:
    """Values of a sensor_msgs/Image as they are stored: (H, W) or (H, W, C) of its own type."""
    name = _known(str(message.encoding).strip())
    if name in _SEMI_PLANAR or name in _PACKED_YUV:
        raise BadImage(f'{name} holds no values of pixels, but luma and shared chroma')
    return _stored(message, name)


def _decode_compressed(
    message: Any, max_pixels: int, warn: Warn, intensity: Intensity | None
) -> Rgb:
    """
    Decode a picture file (JPEG, PNG, TIFF, ...).

    Its own first bytes decide what it is, since drivers disagree about `format` (``rgb8;
    jpeg compressed bgr8``, ``jpeg``, ``jpg``, ``png``). What stands before its first semicolon is
    heeded where it is a Bayer pattern and the file has one channel. Pixels stay as they are
    stored, whatever EXIF says, since camera_info describes those.
    """
    data = bytes(message.data)
    form = str(message.format)[:60]
    if 'compressedDepth' in form:
        raise BadImage(f'format {form!r} is a depth image, not a camera picture')
    if not kind_of(data[:32]):
        raise BadImage(_not_a_picture(data, form))
    try:
        image = decode_file(data, max_pixels, MIN_SIDE)
    except BadImage as error:
        raise BadImage(f'{error} (format {form!r})') from error
    original, _, target = (part.strip().lower() for part in form.partition(';'))
    pattern = re.fullmatch(r'bayer_(rggb|bggr|gbrg|grbg)(8|16)', original)
    grey = image.ndim == 2
    if pattern and not grey and not re.search(r'(rgb|bgr)', target) and _is_grey(image):
        image, grey = np.ascontiguousarray(image[..., 0]), True
    if pattern and grey:
        if image.dtype != np.uint8:
            image = _to_8_bit(image, original, warn, intensity, colour=True)
        return _rgb(image, _BAYER[pattern[1]])
    if warn is not None and grey and original[:3] in ('rgb', 'bgr'):
        warn(f'format {form!r} says colour, the file is grey; a Bayer mosaic has to say bayer_*')
    if image.dtype != np.uint8:
        image = _to_8_bit(image, form or 'compressed', warn, intensity)
    return to_rgb8(image)


def raw_frame(message: Any, max_pixels: int = MAX_PIXELS) -> RawFrame | None:
    """View a sensor_msgs/Image as bytes that a GPU converts itself, or None; else BadImage."""
    # Imported late: whoever only reads bags need not wait for torch.
    from ood_perception.frames.colour import ENCODINGS, RawFrame

    encoding = str(getattr(message, 'encoding', '')).strip()
    if encoding not in ENCODINGS:
        return None
    height, width, step = int(message.height), int(message.width), int(message.step)
    check_size(height, width, max_pixels)
    _check_even(encoding, height, width)
    raw = RawFrame(np.frombuffer(message.data, np.uint8), height, width, step, encoding)
    _rows(message, raw.rows, width * _INTERLEAVED.get(encoding, ('u1', 1, None))[1])
    return raw


def stamp_ns(header: Any) -> int:
    """Nanoseconds since the epoch of a std_msgs/Header's stamp."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _known(encoding: str) -> str:
    """Entry of `ENCODINGS` for a message's encoding. Raises BadImage."""
    for name in (encoding, encoding.lower(), encoding.upper()):
        if name in _INTERLEAVED or name in _SEMI_PLANAR:
            return name
    text = f'unknown encoding {encoding[:40]!r}'
    near = difflib.get_close_matches(encoding.lower()[:40], ENCODINGS, 1, 0.6)
    if near:
        text += f'; the driver should call it {near[0]!r} if that is what it is'
    raise BadImage(f'{text}; this node reads {", ".join(ENCODINGS)}')


def _stored(message: Any, name: str) -> NDArray[Any]:
    height, width = int(message.height), int(message.width)
    kind, channels, _ = _INTERLEAVED[name]
    rows = _rows(message, height, width * int(kind[1]) * channels)
    shape = (height, width, channels) if channels > 1 else (height, width)
    if kind == 'u1':  # a view, whatever the padding
        strides = (rows.strides[0], channels, 1)[: len(shape)]
        return np.lib.stride_tricks.as_strided(rows, shape, strides)
    order = '>' if message.is_bigendian else '<'
    values = np.ascontiguousarray(rows).view(order + kind).reshape(shape)
    return values.astype(values.dtype.newbyteorder('='), copy=False)


def _not_a_picture(data: bytes, form: str) -> str:
    """Why the bytes of a CompressedImage cannot be read, and what to do."""
    text = f'{len(data)} bytes of format {form!r}'
    named = next((v for v in _VIDEO if v in form.lower()), '')
    is_theora = named == 'theora' or (not named and re.match(rb'[\x80-\x82]theora', data))
    if named or is_theora or data.startswith((b'\0\0\0\1', b'\0\0\1')):
        what, codec = 'video, not pictures', 'theora' if is_theora else 'ffmpeg'
    elif data.startswith(b'\x28\xb5\x2f\xfd'):
        what = codec = 'zstd'
    else:
        return f'{text} are no picture (JPEG, PNG, TIFF, WebP, BMP, AVIF, GIF, JPEG 2000, PNM)'
    return (
        f'{text} are {what}; turn them into images: ros2 run image_transport republish --ros-args '
        f'-p in_transport:={codec} -p out_transport:=raw -r in/{codec}:=TOPIC/{codec} '
        '-r out:=TOPIC/decoded'
    )


def _check_even(name: str, height: int, width: int) -> None:
    """Pixels share their colour with the next one, and with nv12 and nv21 with those below."""
    if name in ('nv12', 'nv21') and (height % 2 or width % 2):
        raise BadImage(f'{name} needs even sides, got {width}x{height}')
    if name in _PACKED_YUV and width % 2:
        raise BadImage(f'{name} needs an even width, got {width}')


def _rows(message: Any, count: int, row: int) -> NDArray[np.uint8]:
    """View of `count` rows of `row` bytes of a message's data."""
    data, step = np.frombuffer(message.data, np.uint8), int(message.step)
    if step < row:
        raise BadImage(f'step {step} is smaller than a row of {row} bytes')
    # Some drivers leave out the padding of the last row.
    need = (count - 1) * step + row
    if data.size < need:
        raise BadImage(f'truncated: {data.size} bytes of {need} (step {step}, {count} rows)')
    return np.lib.stride_tricks.as_strided(data, (count, row), (step, 1))


def _semi_planar(name: str, rows: NDArray[np.uint8], height: int, width: int) -> Rgb:
    if name != 'nv24':
        return _rgb(rows, cv2.COLOR_YUV2RGB_NV12 if name == 'nv12' else cv2.COLOR_YUV2RGB_NV21)
    # Every pixel has its own chroma: as YUY2 of twice the width OpenCV converts it exactly.
    chroma = np.ascontiguousarray(rows[height:]).reshape(height, width, 2)
    packed = np.empty((height, width, 4), np.uint8)
    packed[..., 0] = packed[..., 2] = rows[:height]
    packed[..., 1], packed[..., 3] = chroma[..., 0], chroma[..., 1]
    wide = _rgb(packed.reshape(height, 2 * width, 2), cv2.COLOR_YUV2RGB_YUY2)
    return np.ascontiguousarray(wide[:, ::2])


def _rgb(image: NDArray[Any], conversion: int) -> Rgb:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), conversion), np.uint8)


def _to_8_bit(
    values: NDArray[Any], name: str, warn: Warn, intensity: Intensity | None, colour: bool = False
) -> NDArray[np.uint8]:
    """8 bits, without alpha; a mosaic's values are those of a colour image."""
    if values.ndim == 3 and values.shape[2] == 4:
        values = np.ascontiguousarray(values[..., :3])
    mosaic = colour or name.startswith('bayer')
    try:
        mapped = (intensity or Intensity())(values[..., None] if mosaic else values, name, warn)
    except ValueError as error:
        raise BadImage(str(error)) from error
    return mapped[..., 0] if mosaic else mapped


def _is_grey(image: NDArray[Any]) -> bool:
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())
