# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""No raw 720p frame is lost between two processes with the shipped transport profile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sensor_msgs.msg import Image

from ood_perception.ros import qos

WIDTH, HEIGHT = 1280, 720

# Each frame carries its number in all of its pixels' low byte and in its stamp.
SENDER = f"""
import sys, time
from ood_perception.ros import process
from ood_perception.ros.image_topic import ImageMessage
process.prepare()
import rclpy
from ood_perception.ros import qos
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('sender')
publisher = node.create_publisher(Image, '/transport/image_raw', qos.profile('best_effort'))
while publisher.get_subscription_count() == 0:
    time.sleep(0.05)
time.sleep(1.0)
image = ImageMessage({HEIGHT}, {WIDTH}, 'rgb8')
due = time.monotonic()
for i in range(int(sys.argv[1])):
    image.pixels[:] = i % 251
    image.message.header.stamp.sec = i
    publisher.publish(image.message)
    due = max(due + 1 / 30, time.monotonic())
    time.sleep(due - time.monotonic() if due > time.monotonic() else 0)
time.sleep(2.0)
node.destroy_node()
rclpy.shutdown()
"""


@pytest.mark.parametrize('count', [60, pytest.param(300, marks=pytest.mark.slow)])
def test_raw_720p_frames_at_30_hz_arrive(ros_node, spin_until, count):
    seen: list[int] = []
    damaged: list[int] = []

    def keep(message: Image) -> None:
        number = message.header.stamp.sec
        seen.append(number)
        pixels = np.frombuffer(message.data, np.uint8)
        if pixels.size != WIDTH * HEIGHT * 3 or (pixels[::4099] != number % 251).any():
            damaged.append(number)

    ros_node.create_subscription(
        Image, '/transport/image_raw', keep, qos.profile('best_effort', 30)
    )
    root = Path(__file__).resolve().parents[2]
    sender = subprocess.Popen(
        [sys.executable, '-c', SENDER, str(count)], cwd=root, env=os.environ.copy()
    )
    try:
        spin_until(lambda: len(seen) == count or sender.poll() is not None, 120)
    finally:
        if sender.poll() is None:
            sender.wait(30)
    lost = sorted(set(range(count)) - set(seen))
    assert not lost, f'{len(lost)} of {count} frames lost: {lost[:20]}'
    assert seen == list(range(count))
    assert not damaged
