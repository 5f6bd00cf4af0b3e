# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Bytes of a picture file (JPEG, PNG, TIFF, BMP, WebP, AVIF, ...) to arrays and back.

The bytes themselves decide what they are, never a name. One policy of orientation: a topic's
pictures stay as they are stored, since camera_info and depth describe the stored pixels; files
are shown upright, as a person sees them (:func:`upright`).
"""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.intensity import Intensity, Warn

MIN_SIDE = 16  # pixels; a smaller image cannot hold an object that the networks could see
MAX_PIXELS = 16_000_000  # default upper bound of a topic's image (4K has 8.3 million)
MAX_FILE_PIXELS = 250_000_000  # upper bound of a file's picture; phones have up to 200 million

Rgb = NDArray[np.uint8]


class BadImage(ValueError):
    """A message or file that holds no usable image; the text says why and what to do."""


_MAGIC = (
    (b'\xff\xd8', 'JPEG'),
    (b'\x89PNG\r\n\x1a\n', 'PNG'),
    (b'II*\0', 'TIFF'),
    (b'MM\0*', 'TIFF'),
    (b'II+\0', 'TIFF'),
    (b'GIF8', 'GIF'),
    (b'\0\0\0\x0cjP  ', 'JPEG 2000'),
    (b'\xff\x4f\xff\x51', 'JPEG 2000'),
)
_BRANDS = {b'avif': 'AVIF', b'avis': 'AVIF', b'heic': 'HEIC', b'heix': 'HEIC', b'mif1': 'HEIC'}

# OpenCV prints what arrives here as None, or as a webcam that does not open, and is then told.
cv2.setLogLevel(0)

KINDS = ('JPEG', 'PNG', 'TIFF', 'BMP', 'WebP', 'AVIF', 'GIF', 'JPEG 2000', 'PNM')
"""Kinds of files that :func:`decode_file` reads."""


def kind_of(data: bytes) -> str:
    """Kind of a picture by its first 32 bytes, an entry of `KINDS` or 'HEIC'; '' = no picture."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
        return 'WebP'
    if data[:2] == b'BM' and data[6:10] == b'\0\0\0\0':
        return 'BMP'
    if data[:1] == b'P' and data[1:2] in b'123456' and data[2:3] in b' \t\r\n#' and data[2:3]:
        return 'PNM'
    return _BRANDS.get(data[8:12], '') if data[4:8] == b'ftyp' else ''


def decode_file(data: bytes, max_pixels: int = MAX_FILE_PIXELS, min_side: int = 1) -> NDArray[Any]:
    """
    Decode a picture as it is stored: (H, W) or (H, W, 3) RGB, uint8, uint16 or a float type.

    Alpha is left out. What has more pixels or a shorter side is refused before it is decoded. No
    picture, a cut off or a damaged one are a BadImage.
    """
    kind = kind_of(data[:32])
    if kind not in KINDS:
        raise BadImage(_no_picture(data, kind))
    height, width = _size(data, kind)
    check_size(height, width, max_pixels, min_side)
    if kind == 'JPEG':
        data = complete_jpeg(data)
    elif kind == 'PNG' and data.rfind(b'IEND', 33) < 0:
        raise BadImage(f'PNG is cut off after {len(data)} bytes')
    image = None if kind in ('AVIF', 'GIF') else _opencv(data)
    if image is None:
        image = _pillow(data, kind)
    elif kind == 'TIFF' and (turned := orientation(data)) != 1:
        image = _as_stored(image, turned)  # OpenCV turns this kind by itself
    if image.ndim == 3 and image.shape[2] in (2, 4):
        image = image[..., : image.shape[2] - 1]
    return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image


def to_rgb8(image: NDArray[Any], intensity: Intensity | None = None, warn: Warn = None) -> Rgb:
    """Bring a decoded picture, (H, W) or (H, W, 3) RGB of any type, to uint8 (H, W, 3) RGB."""
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * 255
    if image.dtype != np.uint8:
        try:
            image = (intensity or Intensity())(image, image.dtype.name, warn)
        except ValueError as error:
            raise BadImage(str(error)) from error
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    return np.ascontiguousarray(image)


def orientation(data: bytes) -> int:
    """EXIF orientation 1..8 of a picture's bytes; 1 = upright, also where nothing is said."""
    if kind_of(data[:32]) not in ('JPEG', 'PNG', 'WebP', 'TIFF'):
        return 1
    try:
        with _opened(data) as image:
            value = image.getexif().get(0x0112, 1)
        return int(value) if int(value) in _TURNS else 1
    except Exception:  # damaged EXIF says nothing of the pixels
        return 1


# EXIF orientation -> (quarter turns counterclockwise, then whether mirrored left to right)
_TURNS = {1: (0, 0), 2: (0, 1), 3: (2, 0), 4: (2, 1), 5: (3, 1), 6: (3, 0), 7: (1, 1), 8: (1, 0)}


def upright(image: NDArray[Any], exif: int) -> NDArray[Any]:
    """Turn stored pixels, (H, W) or (H, W, 3), as their EXIF orientation 1..8 says."""
    turns, mirrored = _TURNS[exif]
    image = np.rot90(image, turns)
    return np.ascontiguousarray(image[:, ::-1] if mirrored else image)


def _as_stored(image: NDArray[Any], exif: int) -> NDArray[Any]:
    """Undo :func:`upright`."""
    turns, mirrored = _TURNS[exif]
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if mirrored else image, -turns))


def check_size(height: int, width: int, max_pixels: int, min_side: int = MIN_SIDE) -> None:
    """Raise BadImage for an image that is too small to see in, or larger than allowed."""
    if min(height, width) < min_side:
        raise BadImage(f'image of {width}x{height}; the smallest is {min_side}x{min_side}')
    if height * width > max_pixels:
        raise BadImage(
            f'image of {width}x{height} has more than {max_pixels / 1e6:g} megapixels; '
            'scale it down in the driver or raise the parameter max_megapixels'
        )


def complete_jpeg(data: bytes) -> bytes:
    """
    Give a JPEG its end marker where only that is missing, as with some USB and IP cameras.

    Whether all rows came is seen by decoding it with different tails: where pixels depend on the
    tail, they were missing, which is a BadImage. (libjpeg itself fills them with grey.)
    """
    cut_off = BadImage(f'JPEG is cut off after {len(data)} bytes')
    start = next((at for marker, at in _jpeg_segments(data) if marker == 0xDA), -1)
    if start < 0:
        raise cut_off
    if data.rfind(b'\xff\xd9', start) >= 0:
        return data
    # Padding by zeros would be taken for rows; 0xff 0x00 is a byte of the picture.
    body = data.rstrip(b'\0')
    body = body + b'\0' if body.endswith(b'\xff') else body
    noise = np.random.default_rng(0).integers(0, 255, 4096, np.uint8).tobytes()
    # By Pillow, whose libjpeg prints nothing.
    first, *others = (_pillow(body + t + b'\xff\xd9', 'JPEG') for t in (b'', bytes(4096), noise))
    if not all(np.array_equal(first, other) for other in others):
        raise cut_off
    return body + b'\xff\xd9'


def encode(image: NDArray[Any], suffix: str, quality: int = 90) -> bytes:
    """
    Encode uint8 (H, W, 3) RGB, or uint8 or uint16 (H, W), in memory as '.jpg' or '.png'.

    What the encoder refuses is a ValueError (a JPEG's side is at most 65500 pixels).
    """
    if image.ndim == 3:
        image = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == '.jpg' else []
    try:
        done, data = cv2.imencode(suffix, np.ascontiguousarray(image), options)
    except cv2.error as error:
        raise ValueError(f'{suffix[1:]} of {image.shape} {image.dtype}: {error.err}') from error
    if not done:
        raise ValueError(f'{suffix[1:]} of {image.shape} {image.dtype} cannot be encoded')
    return bytes(data)


def _opencv(data: bytes) -> Any:
    """RGB, grey, or either with alpha; None where OpenCV cannot."""
    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or image.ndim == 2:
            return image
        code = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}.get(image.shape[2])
        if code is None:
            return image
        if image.dtype in (np.uint8, np.uint16, np.float32):
            return np.asarray(cv2.cvtColor(image, code))
        return np.ascontiguousarray(image[..., [2, 1, 0, 3][: image.shape[2]]])
    except cv2.error:
        return None


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with Image.open(io.BytesIO(data)) as image:
            yield image


def _pillow(data: bytes, kind: str) -> NDArray[Any]:
    try:
        with _opened(data) as image:
            deep = image.mode in ('L', 'I', 'I;16', 'I;16B', 'F', 'RGB')
            return np.array(image if deep else image.convert('RGB'))
    except Exception as error:  # each of its plugins has its own exceptions
        raise _damaged(data, kind, error) from error


def _size(data: bytes, kind: str) -> tuple[int, int]:
    """Stored (height, width) by the file's header."""
    if kind == 'JPEG':
        return _jpeg_size(data)
    try:
        with _opened(data) as image:
            return image.height, image.width
    except Exception as error:
        # of these kinds Pillow does not know all that OpenCV reads
        if kind in ('TIFF', 'JPEG 2000') and (image := _opencv(data)) is not None:
            return image.shape[0], image.shape[1]
        raise _damaged(data, kind, error) from error


def _damaged(data: bytes, kind: str, error: Exception) -> BadImage:
    why = str(error).partition(' <_io')[0]  # Pillow names the object that holds the bytes
    return BadImage(f'damaged {kind} ({len(data)} bytes): {why}')


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
            bits, height, width = struct.unpack_from('>BHH', data, at + 4)
            if bits != 8:
                raise BadImage(f'JPEG of {bits} bits a channel; 8 bits can be read')
            return height, width
    raise BadImage(f'JPEG is cut off after {len(data)} bytes')


def _jpeg_segments(data: bytes) -> Any:
    """Yield (marker, offset) of the segments up to the first scan. Raises BadImage."""
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise BadImage('damaged JPEG header')
        if marker == 0xFF:  # a fill byte before a marker
            at += 1
            continue
        yield marker, at
        if marker == 0xDA:
            return
        at += 2 + max(int.from_bytes(data[at + 2 : at + 4], 'big'), 2)


def _no_picture(data: bytes, kind: str) -> str:
    if not data:
        return 'empty: 0 bytes'
    if kind == 'HEIC':
        return 'HEIC pictures cannot be read; convert them (heif-convert IN.heic OUT.jpg)'
    return f'{len(data)} bytes that begin with {data[:8]!r} are no picture ({", ".join(KINDS)})'
