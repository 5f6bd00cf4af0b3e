# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""From hand to hand: how often a frame, or what was made of it, is given from file to file."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
import torch
from node_helpers import PATIENCE, image
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import String

import ood_perception
from ood_perception.ros.camera_stream import Mailbox
from ood_perception.ros.frame_processor import FrameProcessor
from ood_perception.ros.node import OodNode
from ood_simulation import ProvingGround

MOST = 40
"""Functions of other files that get the frame, or what was made of it, on its way."""

ROOT = str(Path(ood_perception.__file__).parent)
NETWORKS = (
    'compact.py',
    'detection_head.py',
    'efficientnet_lite.py',
    'mask_head.py',
    'building.py',
)
"""What a network does within itself is one step, which other engines run as a graph."""

PARTS = {
    *('Batch', 'DecodedFrame', 'Image', 'Instances', 'PendingFrame', 'RawFrame', 'Result'),
    'SegmentorOutput',
}


def holds_pixels(value: Any, depth: int = 0) -> bool:
    """Whether a value is a picture, a map, or something that has one."""
    if isinstance(value, (list, tuple)) and depth < 2:
        return any(holds_pixels(part, depth + 1) for part in value)
    size = value.numel() if isinstance(value, torch.Tensor) else getattr(value, 'size', 0)
    large = isinstance(value, (torch.Tensor, np.ndarray)) and size >= 500
    return large or type(value).__name__ in PARTS


class Hands:
    """Notes each function that gets pixels from another file of the package, while it is on."""

    def __init__(self) -> None:
        self.on = False
        self.found: dict[tuple[str, str], int] = {}

    def watch(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
        """Watch what a method does, in whatever thread."""
        method = getattr(kind, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            if not self.on:
                return method(*arguments, **named)
            sys.setprofile(self._look)
            try:
                return method(*arguments, **named)
            finally:
                sys.setprofile(None)

        monkeypatch.setattr(kind, name, watched)

    def _look(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != 'call' or not code.co_filename.startswith(ROOT) or code.co_name[0] == '<':
            return
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(ROOT):
            caller = caller.f_back
        if caller is None or caller.f_code.co_filename == code.co_filename:
            return
        if any(caller.f_code.co_filename.endswith(file) for file in NETWORKS):
            return
        count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4)
        if any(holds_pixels(frame.f_locals.get(name)) for name in code.co_varnames[:count]):
            giver, taker = (Path(f.f_code.co_filename).relative_to(ROOT) for f in (caller, frame))
            pair = str(giver), f'{taker}: {code.co_name}'
            self.found[pair] = self.found.get(pair, 0) + 1


def test_a_frame_is_handed_on_forty_times_at_most(ros, monkeypatch):
    hands, got = Hands(), []
    for kind, name in (
        (Mailbox, 'put'),
        (FrameProcessor, 'decode'),
        (FrameProcessor, 'compute'),
        (FrameProcessor, 'publish'),
    ):
        hands.watch(monkeypatch, kind, name)
    parameters = {'profile': 'compact', 'engine': 'eager', 'detection_threshold': 0.0}
    node = OodNode(
        'way',
        cli_args=['--ros-args', '-r', 'image:=/way/image_raw'],
        parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()],
    )
    client, executor = rclpy.create_node('way_client'), SingleThreadedExecutor()
    for each in (node, client):
        executor.add_node(each)
    for kind, topic in ((Image, 'heatmap'), (Image, 'instances'), (String, 'detections_json')):
        here = got if topic == 'detections_json' else []
        client.create_subscription(kind, f'/way/{topic}', here.append, 10)
    camera = client.create_publisher(Image, '/way/image_raw', 10)
    frames = (ProvingGround(seed=1007).frame(index).image for index in range(150, 300, 3))
    thread = threading.Thread(target=executor.spin, daemon=True)
    try:
        assert node.start()
        thread.start()
        end = time.monotonic() + 60 * PATIENCE
        while 'crop_masks' not in str(hands.found):
            assert time.monotonic() < end, got
            # The first one warms it up; then each is watched until one has an object.
            hands.on, seen = bool(got), len(got)
            hands.found.clear()
            message = image(next(frames))
            message.header.stamp.sec = 1
            message.header.stamp.nanosec = 100_000_000 * len(got)
            camera.publish(message)
            while len(got) == seen and time.monotonic() < end:
                time.sleep(0.02)
            time.sleep(0.1 if hands.on else 0.0)
    finally:
        hands.on = False
        executor.shutdown()
        node.stop()
        for each in (node, client):
            each.destroy_node()
    way = sorted(hands.found)
    assert 20 < len(way) <= MOST, '\n'.join(f'{giver} -> {taker}' for giver, taker in way)
