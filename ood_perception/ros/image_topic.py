# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Image messages that are written in place and reused, and topics, raw and compressed, of them."""

from __future__ import annotations

import array
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from ood_perception.frames.picture import encode

JPEG = {'rgb8': 'bgr8', 'mono8': 'mono8'}
"""Encodings that are compressed as JPEG, and what it holds; others become PNG."""

_DTYPES = {
    'mono8': (np.uint8, ()),
    'rgb8': (np.uint8, (3,)),
    'bgr8': (np.uint8, (3,)),
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
        encoding: mono8, rgb8, bgr8, mono16 or 32FC1.

    Attributes:
        message: the sensor_msgs/Image.
        pixels: writable view (H, W) or (H, W, C) of its data.

    Raises:
        ValueError: encoding without a fixed layout, or a size below 1.
    """

    def __init__(self, height: int, width: int, encoding: str) -> None:
        if encoding not in _DTYPES:
            raise ValueError(f'encoding: expected one of {", ".join(_DTYPES)}, got {encoding!r}')
        if height < 1 or width < 1:
            raise ValueError(f'size: expected at least 1x1, got {width}x{height}')
        kind, channels = _DTYPES[encoding]
        dtype = np.dtype(kind)
        step = width * dtype.itemsize * int(np.prod(channels, dtype=int))
        self.message = Image(
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

    def write(self, pixels: NDArray[Any], header: Any) -> Image:
        """
        Copy pixels in, set the header, and return the message to publish.

        Nothing is copied where `pixels` are those of the message itself.
        """
        if pixels is not self.pixels:
            np.copyto(self.pixels, pixels)
        self.message.header = header
        return self.message


def heard(publisher: Any) -> bool:
    """Whether there is a publisher, and somebody who subscribes to it."""
    return publisher is not None and publisher.get_subscription_count() > 0


class ImageTopic:
    """An image topic with one message that is written in place and reused."""

    def __init__(self, encoding: str, publisher: Any, compressed: Any = None) -> None:
        self.encoding = encoding
        self.publisher = publisher  # of the raw topic, or None
        self.compressed = compressed  # of the ``/compressed`` sibling, or None
        self._message: ImageMessage | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody subscribes to any form of it."""
        return heard(self.publisher) or heard(self.compressed)

    def buffer(self, height: int, width: int) -> NDArray[Any]:
        """Writable view of the message's pixels, (H, W) or for rgb8 (H, W, 3)."""
        return self._sized(height, width).pixels

    def publish(self, header: Any, pixels: NDArray[Any], quality: int) -> None:
        """
        Send pixels to whoever listens.

        Args:
            pixels: image in the topic's encoding; may be :meth:`buffer` itself.
            quality: 1..100 of the JPEG.
        """
        if heard(self.compressed):
            kind = JPEG.get(self.encoding)
            form = f'jpeg compressed {kind}' if kind else f'png compressed {self.encoding}'
            data = array.array('B', encode(pixels, '.jpg' if kind else '.png', quality))
            text = f'{self.encoding}; {form}'
            self.compressed.publish(CompressedImage(header=header, format=text, data=data))
        if heard(self.publisher):
            self.publisher.publish(self._sized(*pixels.shape[:2]).write(pixels, header))

    def _sized(self, height: int, width: int) -> ImageMessage:
        message = self._message
        if message is None or message.pixels.shape[:2] != (height, width):
            message = self._message = ImageMessage(height, width, self.encoding)
        return message
