# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
rosbag2 files without ROS: write a drive, list and read topics; with rclpy: play and record.

`play` and `record` are imported on first use, since they need rclpy; everything else needs only
the package rosbags.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

    from ood_perception.ros.tools.playing import play
    from ood_perception.ros.tools.recording import record
    from ood_perception.simulation import SimulatedFrame

STORAGES = ('sqlite3', 'mcap')
DRIVE_START_NS = 1_735_689_600 * 10**9
"""Stamp of a rendered drive's beginning: 2025-01-01 00:00 UTC, the same for each, to compare."""

CAMERA_FRAME = 'camera_optical_frame'

LAZY = {'play': 'playing', 'record': 'recording'}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        from importlib import import_module

        return getattr(import_module(f'ood_perception.ros.{LAZY[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


class BagError(ValueError):
    """A bag cannot be read or written; the text says which and why."""


@dataclass(frozen=True)
class Topic:
    """
    One topic of a bag.

    Attributes:
        name: with a leading slash.
        type: for example ``sensor_msgs/msg/Image``.
        count: messages.

    """

    name: str
    type: str
    count: int


def typestore() -> Typestore:
    """Message definitions of the sourced distribution, else those of Kilted."""
    from rosbags.typesys import Stores, get_typestore

    name = f'ros2_{os.environ.get("ROS_DISTRO", "kilted")}'
    known = {store.value: store for store in Stores}
    return get_typestore(known.get(name, Stores.ROS2_KILTED))


def open_writer(path: str | Path, storage: str = 'sqlite3') -> Any:
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


def open_reader(path: str | Path) -> Any:
    """
    Opened-on-enter rosbag2 reader of a bag's folder, or of a single .mcap or .db3 file.

    Raises:
        BagError: no such bag, or not one that can be read.

    """
    from rosbags.rosbag2 import Reader, ReaderError

    path = Path(path)
    if not path.exists():
        raise BagError(f'no bag at {path}')
    if path.is_file() and path.suffix == '.db3' and (path.parent / 'metadata.yaml').is_file():
        path = path.parent
    try:
        return Reader(path)
    except (ReaderError, OSError, KeyError, ValueError, TypeError) as error:
        raise BagError(f'{path} is not a rosbag2 bag: {error}') from error


def topics(path: str | Path) -> list[Topic]:
    """Topics of a bag, sorted by name. Raises BagError as :func:`open_reader`."""
    with opened(path) as reader:
        return sorted(
            (Topic(c.topic, c.msgtype, c.msgcount) for c in reader.connections),
            key=lambda topic: topic.name,
        )


def read_topic(path: str | Path, topic: str) -> Iterator[tuple[int, Any]]:
    """
    Messages of one topic in the order they were written.

    Args:
        path: of the bag.
        topic: its name.

    Yields:
        The time in ns at which it was recorded, and the message with numpy arrays for its data.

    Raises:
        BagError: no such bag or topic; the text names the topics there are.

    """
    with opened(path) as reader:
        chosen = [c for c in reader.connections if c.topic == topic]
        if not chosen:
            names = ', '.join(sorted(c.topic for c in reader.connections)) or 'no topics at all'
            raise BagError(f'{path} has no topic {topic!r}; it has {names}')
        store = typestore()
        for connection, stamp, raw in reader.messages(connections=chosen):
            yield stamp, store.deserialize_cdr(raw, connection.msgtype)


def to_array(message: Any) -> np.ndarray:
    """
    Pixels of a label or camera image read with :func:`read_topic`.

    Args:
        message: sensor_msgs/Image in rgb8, mono8, mono16 or 32FC1.

    Returns:
        uint8 (H, W, 3) for rgb8, else uint8, uint16 or float32 (H, W).

    Raises:
        BagError: another encoding, or too few bytes.

    """
    kinds = {'rgb8': ('u1', 3), 'mono8': ('u1', 1), 'mono16': ('u2', 1), '32FC1': ('f4', 1)}
    if message.encoding not in kinds:
        raise BagError(
            f'encoding: expected one of {", ".join(kinds)}, got {message.encoding!r}; '
            'ood_perception.frames.decode.decode reads camera images of any encoding'
        )
    kind, channels = kinds[message.encoding]
    dtype = np.dtype(('>' if message.is_bigendian else '<') + kind)
    row = message.width * channels * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8)
    if message.step < row or data.size < message.step * message.height:
        raise BagError(f'image of {message.width}x{message.height} has only {data.size} bytes')
    rows = data[: message.step * message.height].reshape(message.height, message.step)[:, :row]
    pixels = np.ascontiguousarray(rows).view(dtype).astype(dtype.newbyteorder('='), copy=False)
    shape = (
        (message.height, message.width, 3) if channels == 3 else (message.height, message.width)
    )
    return pixels.reshape(shape)


def write_drive(
    path: str | Path,
    frames: Iterable[SimulatedFrame],
    *,
    focal: float = 0.0,
    storage: str = 'sqlite3',
    camera: str = '/camera',
    labels: str = '/labels',
    compressed: bool = False,
    frame_id: str = CAMERA_FRAME,
    start_ns: int = DRIVE_START_NS,
    on_frame: Callable[[int], None] | None = None,
) -> int:
    """
    Write frames and their labels as a rosbag2 bag; all messages of a frame carry one stamp.

    Topics: ``<camera>/image_raw`` (rgb8) or with `compressed` ``<camera>/image_raw/compressed``,
    ``<camera>/camera_info``, ``<labels>/anomaly`` (mono8; 0 known, 1 unknown, 255 ignore),
    ``<labels>/instances`` (mono16) and ``<labels>/semantic`` (mono8).

    Args:
        path: folder to be made.
        frames: for example ``ProvingGround(seed).drive(seconds)``.
        focal: focal length in pixels for camera_info, 0 = the frame's width.
        storage: 'sqlite3' or 'mcap'.
        camera: namespace of the camera.
        labels: namespace of the labels, '' for none.
        compressed: write JPEG of quality 95 instead of raw images.
        frame_id: of all headers.
        start_ns: stamp of second 0 of the drive.
        on_frame: is told the number of frames written so far.

    Returns:
        Number of frames.

    Raises:
        BagError: as :func:`open_writer`.

    """
    store = typestore()
    writer = open_writer(path, storage)
    kinds = store.types
    count = 0
    with writer:
        connections: dict[str, Any] = {}

        def put(topic: str, message: Any, stamp: int) -> None:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], stamp, store.serialize_cdr(message, kind))

        for frame in frames:
            stamp = start_ns + round(frame.stamp * 1e9)
            time = kinds['builtin_interfaces/msg/Time'](stamp // 10**9, stamp % 10**9)
            header = kinds['std_msgs/msg/Header'](time, frame_id)
            if compressed:
                put(f'{camera}/image_raw/compressed', _jpeg(kinds, header, frame.image), stamp)
            else:
                put(f'{camera}/image_raw', _image(kinds, header, frame.image, 'rgb8'), stamp)
            put(f'{camera}/camera_info', camera_info(kinds, header, frame.image, focal), stamp)
            if labels:
                for name, pixels, encoding in (
                    ('anomaly', frame.anomaly, 'mono8'),
                    ('instances', frame.instances, 'mono16'),
                    ('semantic', frame.semantic, 'mono8'),
                ):
                    put(f'{labels}/{name}', _image(kinds, header, pixels, encoding), stamp)
            count += 1
            if on_frame is not None:
                on_frame(count)
    return count


def camera_info(kinds: Any, header: Any, image: np.ndarray, focal: float = 0.0) -> Any:
    """Ideal pinhole sensor_msgs/CameraInfo of an (H, W, ...) image; `focal` in pixels, 0 = W."""
    height, width = image.shape[:2]
    f, cx, cy = focal or float(width), width / 2, height / 2
    region = kinds['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    return kinds['sensor_msgs/msg/CameraInfo'](
        header=header,
        height=height,
        width=width,
        distortion_model='plumb_bob',
        d=np.zeros(5),
        k=np.array([f, 0, cx, 0, f, cy, 0, 0, 1.0]),
        r=np.eye(3).ravel(),
        p=np.array([f, 0, cx, 0, 0, f, cy, 0, 0, 0, 1.0, 0]),
        binning_x=0,
        binning_y=0,
        roi=region,
    )


def _image(kinds: Any, header: Any, pixels: np.ndarray, encoding: str) -> Any:
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).view(np.uint8).ravel()
    return kinds['sensor_msgs/msg/Image'](
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=data.size // height,
        data=data,
    )


def _jpeg(kinds: Any, header: Any, pixels: np.ndarray) -> Any:
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, 95]
    data = cv2.imencode('.jpg', cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1]
    return kinds['sensor_msgs/msg/CompressedImage'](
        header=header, format='rgb8; jpeg compressed bgr8', data=data.ravel()
    )


class opened:
    """
    `with opened(path) as reader`: what cannot be read of a damaged bag is a BagError.

    Of an mcap bag without its end, or without its metadata, everything up to the cut is read; the
    reader's attribute `damage` then says where that is.
    """

    def __init__(self, path: str | Path) -> None:
        from ood_perception.bags.salvage import SalvageReader

        self.path = path
        self.salvage = SalvageReader(path)
        try:
            self.reader = open_reader(path)
        except BagError:
            if not self.salvage.files(Path(path)):
                raise
            self.reader = self.salvage

    def __enter__(self) -> Any:
        try:
            self.reader.open()
        except Exception as error:  # every storage plugin has its own exceptions
            if not self._salvaged():
                raise BagError(f'{self.path} cannot be read: {error}') from error
        else:
            if self.reader is self.salvage and not self.salvage.connections:
                raise BagError(f'{self.path} cannot be read: {self.salvage.damage}')
        return self.reader

    def _salvaged(self) -> bool:
        """Whether anything is left of a bag that cannot be opened."""
        if self.reader is self.salvage or not self.salvage.files(Path(self.path)):
            return False
        try:
            self.salvage.open()
        except OSError:
            return False
        self.reader = self.salvage
        return bool(self.salvage.connections)

    def __exit__(self, *_: object) -> None:
        self.reader.close()


__all__ = [
    'CAMERA_FRAME',
    'DRIVE_START_NS',
    'BagError',
    'Topic',
    'camera_info',
    'open_reader',
    'open_writer',
    'opened',
    'play',
    'read_topic',
    'record',
    'to_array',
    'topics',
    'typestore',
    'write_drive',
]
