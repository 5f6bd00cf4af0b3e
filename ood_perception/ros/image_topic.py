# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""An image topic, raw and compressed, with one message that is written in place and reused."""

from __future__ import annotations

import array
from typing import Any

from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage

from ood_perception.frames.picture import encode
from ood_perception.ros.image_message import ImageMessage

JPEG = {'rgb8': 'bgr8', 'mono8': 'mono8'}
"""Encodings that are compressed as JPEG, and what it holds; others become PNG."""


def heard(publisher: Any) -> bool:
    """Whether there is a publisher, and somebody who subscribes to it."""
    return publisher is not None and publisher.get_subscription_count() > 0


class ImageTopic:
    """
    An image topic with one message that is written in place and reused.

    Attributes:
        publisher: of the raw topic.
        compressed: publisher of the ``/compressed`` sibling, or None.
    """

    def __init__(self, encoding: str, publisher: Any, compressed: Any = None) -> None:
        self.encoding = encoding
        self.publisher = publisher
        self.compressed = compressed
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
            self.compressed.publish(self._encode(header, pixels, quality))
        if heard(self.publisher):
            self.publisher.publish(self._sized(*pixels.shape[:2]).write(pixels, header))

    def _sized(self, height: int, width: int) -> ImageMessage:
        message = self._message
        if message is None or message.pixels.shape[:2] != (height, width):
            message = self._message = ImageMessage(height, width, self.encoding)
        return message

    def _encode(self, header: Any, pixels: NDArray[Any], quality: int) -> CompressedImage:
        kind = JPEG.get(self.encoding)
        form = f'jpeg compressed {kind}' if kind else f'png compressed {self.encoding}'
        return CompressedImage(
            header=header,
            format=f'{self.encoding}; {form}',
            data=array.array('B', encode(pixels, '.jpg' if kind else '.png', quality)),
        )
