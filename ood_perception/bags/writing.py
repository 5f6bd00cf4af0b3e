# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Writing rosbag2 files without ROS: messages from arrays, and whole drives with labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ood_perception.bags.reading import STORAGES, BagError, typestore
from ood_perception.frames.picture import encode

if TYPE_CHECKING:
    from ood_simulation import SimulatedFrame

DEFAULT_STORAGE = 'mcap'
DRIVE_START_NS = 1_735_689_600 * 10**9
"""Stamp of a rendered drive's beginning: 2025-01-01 00:00 UTC, the same for each, to compare."""

CAMERA_FRAME = 'camera_optical_frame'


def open_writer(path: str | Path, storage: str = DEFAULT_STORAGE) -> Any:
    """
    New rosbag2 writer (a context manager of the package rosbags).

    Raises:
        BagError: unknown storage, or the path exists.
    """
    from rosbags.rosbag2 import StoragePlugin, Writer

    if storage not in STORAGES:
        raise BagError(f'storage: expected {" or ".join(STORAGES)}, got {storage!r}')
    path = Path(path)
    if path.exists():
        raise BagError(f'{path} exists already; remove it or choose another name')
    # Older distributions cannot read the newer metadata.
    version = 8 if os.environ.get('ROS_DISTRO') in ('humble', 'iron') else 9
    return Writer(path, version=version, storage_plugin=StoragePlugin[storage.upper()])  # type: ignore[arg-type]


class MessageWriter:
    """
    Messages into an opened writer, each topic connected when it is first used.

    Attributes:
        kinds: message classes by name.
    """

    def __init__(self, writer: Any) -> None:
        self.store = typestore()
        self.kinds = self.store.types
        self._writer = writer
        self._connections: dict[str, Any] = {}

    def put(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Write a message under a time in ns."""
        kind = message.__msgtype__
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, kind, typestore=self.store
            )
        data = self.store.serialize_cdr(message, kind)
        self._writer.write(self._connections[topic], stamp_ns, data)

    def header(self, stamp_ns: int) -> Any:
        """std_msgs/Header of a stamp in ns, in the frame of a camera."""
        time = self.kinds['builtin_interfaces/msg/Time'](*divmod(stamp_ns, 10**9))
        return self.kinds['std_msgs/msg/Header'](time, CAMERA_FRAME)

    def image(self, header: Any, pixels: np.ndarray, encoding: str) -> Any:
        """sensor_msgs/Image of an (H, W) or (H, W, 3) array."""
        height, width = pixels.shape[:2]
        data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
        return self.kinds['sensor_msgs/msg/Image'](
            header=header,
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=data.size // height,
            data=data,
        )

    def jpeg(self, header: Any, pixels: np.ndarray) -> Any:
        """sensor_msgs/CompressedImage of a uint8 (H, W, 3) RGB array, quality 95."""
        return self.kinds['sensor_msgs/msg/CompressedImage'](
            header=header,
            format='rgb8; jpeg compressed bgr8',
            data=np.frombuffer(encode(pixels, '.jpg', 95), np.uint8),
        )

    def camera_info(self, header: Any, size: tuple[int, ...], focal: float = 0.0) -> Any:
        """Ideal pinhole sensor_msgs/CameraInfo of (H, W, ...); `focal` in pixels, 0 = W."""
        region = self.kinds['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        return self.kinds['sensor_msgs/msg/CameraInfo'](
            header=header,
            **pinhole(size[0], size[1], focal),
            d=np.zeros(5),
            binning_x=0,
            binning_y=0,
            roi=region,
        )


def pinhole(height: int, width: int, focal: float = 0.0) -> dict[str, Any]:
    """Size and matrices of an ideal camera's CameraInfo; `focal` in pixels, 0 = the width."""
    f, cx, cy = focal or float(width), width / 2, height / 2
    return {
        'height': height,
        'width': width,
        'distortion_model': 'plumb_bob',
        'k': np.array([f, 0, cx, 0, f, cy, 0, 0, 1.0]),
        'r': np.eye(3).ravel(),
        'p': np.array([f, 0, cx, 0, 0, f, cy, 0, 0, 0, 1.0, 0]),
    }


def write_drive(
    path: str | Path,
    frames: Iterable[SimulatedFrame],
    *,
    focal: float = 0.0,
    storage: str = DEFAULT_STORAGE,
    labels: str = '/labels',
    compressed: bool = False,
    start_ns: int = DRIVE_START_NS,
    on_frame: Callable[[int], None] | None = None,
) -> int:
    """
    Write frames and their labels as a rosbag2 bag; all messages of a frame carry one stamp.

    Topics: ``/camera/image_raw`` (rgb8) or with `compressed` ``/camera/image_raw/compressed``,
    ``/camera/camera_info``, ``<labels>/anomaly`` (mono8; 0 known, 1 unknown, 255 ignore),
    ``<labels>/instances`` (mono16) and ``<labels>/semantic`` (mono8).

    Args:
        frames: for example ``ProvingGround(seed).drive(seconds)``.
        focal: focal length in pixels for camera_info, 0 = the frame's width.
        labels: namespace of the labels, '' for none.
        compressed: write JPEG of quality 95 instead of raw images.
        start_ns: stamp of second 0 of the drive.
        on_frame: is told the number of frames written so far.

    Raises:
        BagError: as :func:`open_writer`.
    """
    count = 0
    with open_writer(path, storage) as writer:
        out = MessageWriter(writer)
        for frame in frames:
            stamp = start_ns + round(frame.stamp * 1e9)
            header = out.header(stamp)
            if compressed:
                out.put('/camera/image_raw/compressed', out.jpeg(header, frame.image), stamp)
            else:
                out.put('/camera/image_raw', out.image(header, frame.image, 'rgb8'), stamp)
            info = out.camera_info(header, frame.image.shape, focal)
            out.put('/camera/camera_info', info, stamp)
            if labels:
                for name, pixels, encoding in (
                    ('anomaly', frame.anomaly, 'mono8'),
                    ('instances', frame.instances, 'mono16'),
                    ('semantic', frame.semantic, 'mono8'),
                ):
                    out.put(f'{labels}/{name}', out.image(header, pixels, encoding), stamp)
            count += 1
            if on_frame is not None:
                on_frame(count)
    return count
