# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What large images need of the process: kept heap blocks, a big transport segment, reused messages.

Call :func:`prepare` before ``rclpy.init``; afterwards the middleware has read its settings.
"""

from __future__ import annotations

import array
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.host_cpu import spin_briefly
from ood_perception.host_memory import keep_freed_memory

if TYPE_CHECKING:
    from sensor_msgs.msg import Image

PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
"""Environment variables of Fast DDS 3 and Fast DDS 2 (Humble, Jazzy) that name a profile file."""

STOCK_VARIABLE = 'OOD_STOCK_TRANSPORT'
"""Set to 1, it keeps the stock transports in this process and those that it starts."""

_DTYPES = {
    'mono8': (np.uint8, ()),
    'rgb8': (np.uint8, (3,)),
    'bgr8': (np.uint8, (3,)),
    'rgba8': (np.uint8, (4,)),
    'bgra8': (np.uint8, (4,)),
    'mono16': (np.uint16, ()),
    '32FC1': (np.float32, ()),
}


def prepare() -> None:
    """
    Set up memory, threads and transport of this process; harmless when called twice.

    Call it before torch is imported and before ``rclpy.init``.
    """
    keep_freed_memory()
    spin_briefly()
    apply_transport_profile()


def transport_profile() -> Path | None:
    """Path of the shipped ``config/fastdds.xml``, or None when it was not installed."""
    folders = [Path(__file__).resolve().parents[2] / 'config']
    for prefix in [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]:
        folders += [Path(prefix) / 'share' / 'ood_perception' / 'config'] if prefix else []
    for folder in folders:
        if (folder / 'fastdds.xml').is_file():
            return folder / 'fastdds.xml'
    return None


def profile_variable() -> str:
    """Environment variable that Fast DDS reads: 3 warns about the name that 2 needs."""
    return PROFILE_VARIABLES[os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')]


def apply_transport_profile() -> Path | None:
    """
    Make Fast DDS use the shipped profile, unless the environment names one already.

    ``OOD_STOCK_TRANSPORT=1`` keeps the stock transports; so does an empty variable, which is then
    removed, since Fast DDS would look for a file of no name. A profile under the name that another
    distribution reads is used, too. Other middlewares ignore the variables.

    Returns:
        The profile that is now in force, None for the stock transports.

    """
    used = profile_variable()
    for name in (used, *PROFILE_VARIABLES):
        if name in os.environ:
            chosen = os.environ[name]
            break
    else:
        chosen = str(transport_profile() or '')
    if os.environ.get(STOCK_VARIABLE) == '1' or not chosen:
        for name in PROFILE_VARIABLES:
            if os.environ.pop(name, None) == '':
                os.environ[STOCK_VARIABLE] = '1'
        return None
    os.environ[used] = chosen
    return Path(chosen)


class ImageMessage:
    """
    A sensor_msgs/Image that is allocated once and written in place.

    Assigning a numpy array to ``Image.data`` converts byte by byte and takes a second at 1080p; a
    view of the array that the message owns costs one copy. `publish` serialises before it returns,
    so the same message serves the next frame.

    Args:
        height: rows.
        width: columns.
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
        """Copy pixels in, set the header if given, and return the message to publish."""
        np.copyto(self.pixels, pixels)
        if header is not None:
            self.message.header = header
        return self.message
