# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Pictures on disk. Bytes are read here; a file's name never reaches a C library.

Names that begin with a dot do not count, suffixes have no case, and 2.png comes before 10.png.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ood_perception.frames.intensity import Intensity, Warn
from ood_perception.frames.picture import (
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
