# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Publish a folder, a video, a webcam or the proving ground as a ROS 2 camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ood_perception.bags.sources import Source, open_source
from ood_perception.bags.writing import CAMERA_FRAME, pinhole
from ood_perception.ros import qos
from ood_perception.ros.image_topic import ImageTopic
from ood_perception.ros.tools.session import SETTLE, flush, tool_node, wait_until

TRANSPORTS = ('raw', 'compressed', 'both')
DEFAULT_RATE = 30.0  # frames per second of a source that has no rate of its own


class CameraPublisher:
    """
    The topics of one camera: image_raw, image_raw/compressed and camera_info.

    Args:
        transport: entry of `TRANSPORTS`.
        focal: focal length in pixels for camera_info, 0 = the frame's width.
        qos_name: entry of `qos.PROFILES`.

    Raises:
        ValueError: unknown transport or QoS, quality out of range.
    """

    def __init__(
        self,
        node: Node,
        namespace: str = 'camera',
        transport: str = 'raw',
        frame_id: str = CAMERA_FRAME,
        focal: float = 0.0,
        quality: int = 90,
        qos_name: str = 'reliable',
    ) -> None:
        if transport not in TRANSPORTS:
            raise ValueError(f'transport: expected {", ".join(TRANSPORTS)}, got {transport!r}')
        if not 1 <= quality <= 100:
            raise ValueError(f'quality: expected 1..100, got {quality}')
        self.node, self.frame_id, self.focal, self.quality = node, frame_id, focal, quality
        profile, base = qos.profile(qos_name), namespace.rstrip('/')
        raw = compressed = None
        if transport != 'compressed':
            raw = node.create_publisher(Image, f'{base}/image_raw', profile)
        if transport != 'raw':
            topic = f'{base}/image_raw/compressed'
            compressed = node.create_publisher(CompressedImage, topic, profile)
        self.image = ImageTopic('rgb8', raw, compressed)
        self.info = node.create_publisher(CameraInfo, f'{base}/camera_info', profile)

    def send(self, image: np.ndarray, stamp_ns: int | None = None) -> Header:
        """
        Publish one frame on the topics that somebody listens to.

        Args:
            image: uint8 (H, W, 3) RGB.
            stamp_ns: of the header, None = the node's clock.
        """
        header = Header(frame_id=self.frame_id)
        if stamp_ns is None:
            stamp_ns = self.node.get_clock().now().nanoseconds
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 10**9)
        self.image.publish(header, image, self.quality)
        matrices = pinhole(image.shape[0], image.shape[1], self.focal)
        self.info.publish(CameraInfo(header=header, d=[0.0] * 5, **matrices))
        return header


def run_camera(
    source: Source | str,
    *,
    namespace: str = 'camera',
    rate: float = 0.0,
    frames: int = 0,
    loop: bool = False,
    wait: float = 0.0,
    context: Context | None = None,
    stop: threading.Event | None = None,
    on_frame: Callable[[int], None] | None = None,
    **options: Any,
) -> int:
    """
    Publish a source until it ends.

    Args:
        source: a Source, or a text for `open_source`.
        rate: frames per second, 0 = the source's own, else 30.
        frames: most frames to send, 0 = all.
        wait: seconds to wait for a first subscriber to an image topic; with nobody there by then
            it begins all the same.
        context: an initialised context, None for a fresh one.
        options: further arguments of `CameraPublisher`.

    Raises:
        SourceError: the source cannot be opened.
        ValueError: an option out of range.
    """
    if rate < 0 or frames < 0 or wait < 0:
        raise ValueError(f'rate, frames, wait: expected 0 or more, got {rate}, {frames}, {wait}')
    source = open_source(source) if isinstance(source, str) else source
    stop = stop or threading.Event()
    options.setdefault('focal', source.focal)
    period = 1.0 / (rate or source.rate or DEFAULT_RATE)
    paced = not source.live or rate > 0
    count = 0
    with tool_node('ood_camera', context) as node:
        camera = CameraPublisher(node, namespace, **options)
        if wait and wait_until(lambda: camera.image.wanted, wait, stop):
            stop.wait(SETTLE)
        due = time.monotonic()
        for image in _frames(source, loop):
            if paced:
                # A source that is too slow must not be chased by a burst of frames.
                due = max(due, time.monotonic() - period)
                if stop.wait(max(0.0, due - time.monotonic())):
                    break
                due += period
            if stop.is_set():
                break
            camera.send(image)
            count += 1
            if on_frame is not None:
                on_frame(count)
            if count == frames:
                break
        if not stop.is_set():
            flush((camera.image.publisher, camera.image.compressed, camera.info))
    return count


def _frames(source: Source, loop: bool) -> Iterator[np.ndarray]:
    yield from source.frames()
    while loop and not source.live:
        yield from source.frames()
