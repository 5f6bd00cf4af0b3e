# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Pictures and labels on disk. Bytes are read here; a file's name never reaches a C library.

Names that begin with a dot do not count, suffixes have no case, and 2.png comes before 10.png.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.intensity import Intensity, Warn
from ood_perception.frames.picture import (
    MAX_FILE_PIXELS,
    BadImage,
    Rgb,
    decode_file,
    kind_of,
    orientation,
    to_rgb8,
    upright,
)

SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm', '.jp2',
            '.avif', '.gif')  # fmt: skip
"""Suffixes that data sets look for; a folder of pictures is sorted out by content instead."""


class Picture(NamedTuple):
    """A picture as a person sees it."""

    rgb: Rgb  # uint8 (H, W, 3)
    orientation: int  # EXIF orientation 1..8 by which the stored pixels were turned


def shown(path: Any) -> str:
    """Name for people: what is not UTF-8 in it is written as ``\\xdf``."""
    return os.fsencode(path).decode('utf-8', 'backslashreplace')


def natural(path: str | Path) -> list[Any]:
    """Sorting key: numbers in names count as numbers."""
    parts = re.split(r'(\d+)', str(path))
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p.lower()) for p in parts] + [str(path)]


def visible(paths: Iterable[Path], root: Path | None = None) -> list[Path]:
    """Paths in natural order, without those that are hidden (below `root`) by a leading dot."""
    kept = []
    for path in paths:
        parts = path.relative_to(root).parts if root is not None else (path.name,)
        if not any(part.startswith('.') for part in parts):
            kept.append(path)
    return sorted(kept, key=natural)


def pictures_in(folder: Path) -> list[Path]:
    """Visible files of a folder with a picture's suffix, in natural order."""
    return visible(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())


def with_any_suffix(path: Path) -> Path | None:
    """File of this name whose suffix is a picture's, in any case; None where there is none."""
    for suffix in (path.suffix, *SUFFIXES):
        for cased in (suffix.lower(), suffix.upper()):
            if cased and (found := path.with_suffix(cased)).is_file():
                return found
    if not path.parent.is_dir():
        return None
    stem = path.stem.lower()
    matches = (p for p in pictures_in(path.parent) if p.stem.lower() == stem)
    return next(matches, None)


def is_picture(path: Path) -> bool:
    """Whether a file's first bytes are those of a picture. Raises OSError."""
    with path.open('rb') as file:
        return bool(kind_of(file.read(32)))


def read_picture(
    path: Path, intensity: Intensity | None = None, warn: Warn | None = None
) -> Picture:
    """
    Read a picture, upright by its EXIF orientation.

    Args:
        intensity: mapping of the stream for more than 8 bits, None for one of its own.
        warn: is told which range of more than 8 bits is used.

    Raises:
        BadImage: no picture, cut off or damaged; the text names the file.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    try:
        image = to_rgb8(decode_file(data), intensity, warn)
    except BadImage as error:
        raise BadImage(f'{shown(path)} cannot be read as an image: {error}') from error
    turned = orientation(data)
    return Picture(upright(image, turned), turned)


def read_label(path: Path) -> NDArray[Any]:
    """
    Read label values as they are stored.

    Returns:
        (H, W) uint8 or uint16: indices of a palette file, 0 and 1 of a file of one bit, the value
        of a colour file whose channels are equal.

    Raises:
        BadImage: no picture, colours, or values outside 0..65535; the text names the file.
        OSError: it cannot be read.
    """
    from PIL import Image

    data = path.read_bytes()
    name = shown(path)
    try:
        kind = kind_of(data[:32])
        if not kind:
            raise BadImage('it is no picture')
        if kind == 'JPEG' or data[12:16] == b'VP8 ':
            raise BadImage(f'a {kind} changes values at edges; write labels as PNG')
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_FILE_PIXELS:
                raise BadImage(f'{image.width}x{image.height} pixels are too many')
            grey_palette = image.mode in ('PA', 'La', 'CMYK', 'YCbCr')
            values = np.array(image.convert('RGB') if grey_palette else image)
    except Exception as error:  # each of Pillow's plugins has its own exceptions
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadImage(f'{name} cannot be read as an image: {error}') from error
    if values.ndim == 3:
        values = _one_channel(values, name)
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if values.dtype.kind == 'f' or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise BadImage(
            f'{name}: label values are {values.dtype} from {values.min():g} to '
            f'{values.max():g}; expected whole numbers of 0..65535'
        )
    return values if values.dtype == np.uint8 else values.astype(np.uint16)


def _one_channel(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Value of a file whose colour channels are equal; alpha is left out."""
    colours = values[..., : 3 if values.shape[2] >= 3 else 1]
    if (colours == colours[..., :1]).all():
        return np.ascontiguousarray(colours[..., 0])
    found, counts = np.unique(colours.reshape(-1, 3), axis=0, return_counts=True)
    order = np.argsort(-counts)[:4]
    listed = ', '.join(f'{tuple(found[i].tolist())} {counts[i]} px' for i in order)
    raise BadImage(
        f'{name}: a label needs one value a pixel, this one has colours ({listed}); '
        'write their indices instead'
    )


def read_rgba(path: Path) -> NDArray[np.uint8]:
    """
    Read a cut-out object.

    Returns:
        uint8 (H, W, 4) RGBA.

    Raises:
        BadImage: no picture, or one without alpha; the text names the file.
        OSError: it cannot be read.
    """
    from PIL import Image

    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            clear = 'A' in image.getbands() or 'transparency' in image.info
            rgba = np.array(image.convert('RGBA'))
    except Exception as error:
        raise BadImage(f'{shown(path)} cannot be read as an image: {error}') from error
    if not clear:
        raise BadImage(f'{shown(path)}: a cut-out needs an alpha channel, got mode {mode}')
    return rgba


def in_step(label: NDArray[Any], size: tuple[int, ...], turned: int) -> NDArray[Any]:
    """
    Turn a label that was drawn on the stored pixels of a picture that is shown upright.

    Args:
        size: (height, width) of the upright picture.
        turned: its EXIF orientation; where both sizes are the same, the label is taken as upright,
            which is how tools for labelling show pictures.
    """
    if turned != 1 and label.shape != size[:2] and upright(label, turned).shape == size[:2]:
        return upright(label, turned)
    return label
