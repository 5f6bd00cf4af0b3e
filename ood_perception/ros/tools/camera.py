# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Publish a folder, a video, a webcam or the proving ground as a ROS 2 camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ood_perception.bags.sources import Source, open_source
from ood_perception.bags.writing import CAMERA_FRAME, pinhole
from ood_perception.ros import qos
from ood_perception.ros.image_topic import ImageTopic
from ood_perception.ros.tools.session import SETTLE, flush, tool_node, wait_until

TRANSPORTS = ('raw', 'compressed', 'both')
DEFAULT_RATE = 30.0  # frames per second of a source that has no rate of its own


def run_camera(
    source: Source | str,
    *,
    namespace: str = 'camera',
    rate: float = 0.0,
    frames: int = 0,
    loop: bool = False,
    wait: float = 0.0,
    transport: str = 'raw',
    frame_id: str = CAMERA_FRAME,
    quality: int = 90,
    qos_name: str = 'reliable',
    stop: threading.Event | None = None,
    on_frame: Callable[[int], None] | None = None,
) -> int:
    """
    Publish a source until it ends: image_raw, image_raw/compressed and camera_info.

    Args:
        source: a Source, or a text for `open_source`.
        rate: frames per second, 0 = the source's own, else 30.
        frames: most frames to send, 0 = all.
        wait: seconds to wait for a first subscriber to an image topic; with nobody there by then
            it begins all the same.
        transport: entry of `TRANSPORTS`.
        quality: 1..100 of the JPEG.
        qos_name: entry of `qos.PROFILES`.

    Returns:
        Frames that were sent.

    Raises:
        SourceError: the source cannot be opened.
        ValueError: an option out of range.
    """
    if rate < 0 or frames < 0 or wait < 0:
        raise ValueError(f'rate, frames, wait: expected 0 or more, got {rate}, {frames}, {wait}')
    if transport not in TRANSPORTS:
        raise ValueError(f'transport: expected {", ".join(TRANSPORTS)}, got {transport!r}')
    if not 1 <= quality <= 100:
        raise ValueError(f'quality: expected 1..100, got {quality}')
    source = open_source(source) if isinstance(source, str) else source
    profile, base = qos.profile(qos_name), namespace.rstrip('/')
    stop = stop or threading.Event()
    period = 1.0 / (rate or source.rate or DEFAULT_RATE)
    paced = not source.live or rate > 0
    count = 0
    with tool_node('ood_camera') as node:
        raw = compressed = None
        if transport != 'compressed':
            raw = node.create_publisher(Image, f'{base}/image_raw', profile)
        if transport != 'raw':
            name = f'{base}/image_raw/compressed'
            compressed = node.create_publisher(CompressedImage, name, profile)
        topic = ImageTopic('rgb8', raw, compressed)
        info = node.create_publisher(CameraInfo, f'{base}/camera_info', profile)
        if wait and wait_until(lambda: topic.wanted, wait, stop):
            stop.wait(SETTLE)
        due = time.monotonic()
        for image in _frames(source, loop):
            if paced:
                # A source that is too slow must not be chased by a burst of frames.
                due = max(due, time.monotonic() - period)
                stop.wait(max(0.0, due - time.monotonic()))
                due += period
            if stop.is_set():
                break
            header = Header(frame_id=frame_id, stamp=node.get_clock().now().to_msg())
            topic.publish(header, image, quality)
            matrices = pinhole(image.shape[0], image.shape[1], source.focal)
            info.publish(CameraInfo(header=header, d=[0.0] * 5, **matrices))
            count += 1
            if on_frame is not None:
                on_frame(count)
            if count == frames:
                break
        if not stop.is_set():
            flush((raw, compressed, info))
    return count


def _frames(source: Source, loop: bool) -> Iterator[np.ndarray]:
    yield from source.frames()
    while loop and not source.live:
        yield from source.frames()
