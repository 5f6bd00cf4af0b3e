# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A sensor_msgs/Image that is allocated once and written in place."""

from __future__ import annotations

import array
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sensor_msgs.msg import Image

_DTYPES = {
    'mono8': (np.uint8, ()),
    'rgb8': (np.uint8, (3,)),
    'bgr8': (np.uint8, (3,)),
    'rgba8': (np.uint8, (4,)),
    'bgra8': (np.uint8, (4,)),
    'mono16': (np.uint16, ()),
    '32FC1': (np.float32, ()),
}


class ImageMessage:
    """
    A sensor_msgs/Image that is allocated once and written in place.

    Assigning a numpy array to ``Image.data`` converts byte by byte and takes a second at 1080p; a
    view of the array that the message owns costs one copy. `publish` serialises before it returns,
    so the same message serves the next frame.

    Args:
        encoding: mono8, rgb8, bgr8, rgba8, bgra8, mono16 or 32FC1.

    Attributes:
        message: the sensor_msgs/Image.
        pixels: writable view (H, W) or (H, W, C) of its data.

    Raises:
        ValueError: encoding without a fixed layout, or a size below 1.
    """

    def __init__(self, height: int, width: int, encoding: str) -> None:
        from sensor_msgs.msg import Image as Message

        if encoding not in _DTYPES:
            raise ValueError(f'encoding: expected one of {", ".join(_DTYPES)}, got {encoding!r}')
        if height < 1 or width < 1:
            raise ValueError(f'size: expected at least 1x1, got {width}x{height}')
        kind, channels = _DTYPES[encoding]
        dtype = np.dtype(kind)
        step = width * dtype.itemsize * int(np.prod(channels, dtype=int))
        self.message: Image = Message(
            height=height,
            width=width,
            encoding=encoding,
            step=step,
            is_bigendian=sys.byteorder == 'big',
            data=array.array('B', b'\0') * (height * step),
        )
        self.pixels: NDArray[Any] = np.frombuffer(self.message.data, dtype).reshape(
            height, width, *channels
        )

    def fits(self, pixels: NDArray[Any]) -> bool:
        """Whether an array has the size and type of this message."""
        return pixels.shape == self.pixels.shape and pixels.dtype == self.pixels.dtype

    def write(self, pixels: NDArray[Any], header: Any = None) -> Image:
        """
        Copy pixels in, set the header if given, and return the message to publish.

        Nothing is copied where `pixels` are those of the message itself.
        """
        if pixels is not self.pixels:
            np.copyto(self.pixels, pixels)
        if header is not None:
            self.message.header = header
        return self.message
