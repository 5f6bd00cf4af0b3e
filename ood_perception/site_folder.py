# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Site folder: what a person said of single objects, with their pictures.

    images/NAME.png    the picture
    labels/NAME.png    the object: 0 = accepted as normal here, 1 = reported as real; 255 elsewhere

So it is a folder of labelled frames, as `ood train uem` takes it. A NAME is TIME_KIND_CAMERA_ID.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.picture import BadImage, decode_file, encode
from ood_perception.labels import Truth

KINDS = {'accepted': Truth.KNOWN, 'reported': Truth.UNKNOWN}  # value in the label


def keep(
    folder: Path,
    kind: str,
    camera: str,
    number: int,
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
) -> str:
    """
    Write what was said of an object, of a kind in `KINDS`, and return the entry's name.

    The number is the object's id, the image uint8 (H, W, 3) RGB, the mask bool (H, W). OSError
    where the folder cannot be made or written.
    """
    name = time.strftime('%Y%m%d-%H%M%S') + f'_{kind}_{camera or "camera"}_{number}'
    label = np.where(mask, np.uint8(KINDS[kind]), np.uint8(Truth.IGNORE))
    for part, pixels in (('images', image), ('labels', label)):
        path = folder / part / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels, path.suffix))
    return name


def names(folder: Path) -> list[str]:
    """Names of all entries, the oldest first."""
    return sorted(path.stem for path in (folder / 'labels').glob('*.png'))


def accepted(folder: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """
    Give image uint8 (H, W, 3) RGB and mask bool (H, W) of each accepted object.

    A picture that cannot be read, or has another size than its label, is a ValueError.
    """
    for name in names(folder):
        if '_accepted_' not in name:
            continue
        files = (folder / part / f'{name}.png' for part in ('images', 'labels'))
        try:
            image, label = (decode_file(file.read_bytes()) for file in files)
        except (OSError, BadImage) as error:
            raise ValueError(f'{folder}: {name} is damaged ({error}); undo it') from error
        if image.ndim != 3 or image.shape[:2] != label.shape:
            raise ValueError(f'{folder}: {name} is damaged (two sizes); undo it')
        yield image, label == Truth.KNOWN


def undo(folder: Path, name: str) -> None:
    """Take back what was said of an object. Raises ValueError: there is no such entry."""
    if name not in names(folder):
        raise ValueError(f'{folder}: no entry {name!r}')
    for part in ('images', 'labels'):
        (folder / part / f'{name}.png').unlink(missing_ok=True)
