# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Objects on disk that were cut out of pictures: their pixels and where they are clear."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ood_perception.bags.files import shown
from ood_perception.frames.picture import BadImage


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
