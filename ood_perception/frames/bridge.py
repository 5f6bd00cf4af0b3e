# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The ROS distribution's cv_bridge, for the conversions of 8 bits that it does well.

Only ROS 2's is taken; the package cv-bridge 1.x of PyPI is ROS 1's. Everything else (rgb8 without
a copy, more than 8 bits, NV12) is :mod:`.decode`'s own, and so are padded rows: cv_bridge counts a
row's padding in whole pixels, which shears a picture of 3 channels whose padding is none.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

ENCODINGS = {
    'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1, 'yuv422': 2, 'yuv422_yuy2': 2,
    'bayer_rggb8': 1, 'bayer_bggr8': 1, 'bayer_gbrg8': 1, 'bayer_grbg8': 1,
}  # fmt: skip
"""Encodings of sensor_msgs/Image that are given to cv_bridge -> bytes of a pixel."""


@functools.lru_cache(maxsize=1)
def bridge() -> Any:
    """cv_bridge's CvBridge of a sourced ROS 2, or None."""
    import importlib.metadata
    import importlib.util

    spec = importlib.util.find_spec('cv_bridge')
    if spec is None:
        return None
    try:
        if int(importlib.metadata.version('cv_bridge').split('.')[0]) < 2:
            return None
    except (importlib.metadata.PackageNotFoundError, ValueError):
        pass  # a distribution's package may come without metadata
    try:
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception as error:  # a C extension of another numpy raises anything
        log.warning('cv_bridge cannot be used, own conversions are: %s', error)
        return None


def to_rgb(message: Any) -> NDArray[np.uint8] | None:
    """
    Convert a sensor_msgs/Image, whose size, step and data fit each other, with cv_bridge.

    Returns uint8 (H, W, 3) RGB; None where there is no cv_bridge, or this is not for it.
    """
    row = message.width * ENCODINGS.get(message.encoding, 0)
    packed = message.step == row and len(message.data) == message.height * row
    if not packed or bridge() is None:
        return None
    try:
        return np.asarray(bridge().imgmsg_to_cv2(message, desired_encoding='rgb8'), np.uint8)
    except Exception as error:
        log.warning('cv_bridge refuses %s: %s', message.encoding, error)
        return None
