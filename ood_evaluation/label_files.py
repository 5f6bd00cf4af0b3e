# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Labels on disk: the file that belongs to a picture, its values, and the way it is turned."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.bags.files import SUFFIXES, pictures_in, shown
from ood_perception.frames.picture import MAX_FILE_PIXELS, BadImage, kind_of, upright


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
