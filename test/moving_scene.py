# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A moving object of known outline in front of the node of `propagating_node`."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from node_helpers import ROOT, Client, NodeProcess, image

FPS = 25.0


def start(folder: Path, name: str, control: Path, *flags: str, **parameters) -> NodeProcess:
    """The node whose detections take as long as the file `control` says."""
    process = NodeProcess.__new__(NodeProcess)
    process.prepare(folder, name, {'image': '/camera/image_raw'}, **parameters)
    script = str(ROOT / 'test' / 'propagating_node.py')
    process.command = [sys.executable, script, str(control), *flags, *process.command[3:]]
    process.start()
    return process


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Structure of every size, as pictures of the world have it, uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for cell in (64, 32, 16, 8):
        coarse = rng.normal(0, cell / 2, (height // cell + 2, width // cell + 2))
        total += cv2.resize(
            coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
    return np.clip(128 + total, 30, 215).astype(np.uint8)


class Scene:
    """A grey ground with a red textured disc that goes round, and where it was in each frame."""

    def __init__(self, client: Client) -> None:
        self.client, self.step = client, 0
        self.sent: dict[int, np.ndarray] = {}
        self.set_size(240, 320)
        self.thing = texture(1, 80, 80)

    def set_size(self, height: int, width: int) -> None:
        self.ground = texture(2, height, width)

    def publish(self, stamp: int) -> None:
        """One frame with the stamp in ns."""
        self.step += 1
        height, width = self.ground.shape
        angle = self.step / 60
        x = round(width / 2 + (width / 2 - 50) * math.cos(angle)) - 40
        y = round(height / 2 + (height / 2 - 50) * math.sin(angle)) - 40
        disc = np.zeros((height, width), np.uint8)
        cv2.circle(disc, (x + 40, y + 40), 35, 1, -1)
        frame = np.stack([self.ground] * 3, -1)
        part = frame[y : y + 80, x : x + 80]
        inside = disc[y : y + 80, x : x + 80] > 0
        part[..., 0][inside] = np.minimum(self.thing[inside].astype(int) + 60, 255)
        part[..., 1:][inside] = (self.thing[inside] // 2)[:, None]
        message = image(frame, frame='optical')
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
        self.sent[stamp] = disc > 0
        self.client.publish('/camera/image_raw', message)

    def run(self, seconds: float, offset: int = 0) -> None:
        """Publish at the camera's rate, stamped by the clock plus `offset` ns."""
        begin, count = time.monotonic(), 0
        while time.monotonic() - begin < seconds:
            self.publish(time.time_ns() + offset)
            count += 1
            self.client.spin(timeout=max(begin + count / FPS - time.monotonic(), 0.0))

    def until(self, condition, seconds: float = 20.0, offset: int = 0) -> bool:
        """Run until something holds."""
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            self.run(0.2, offset)
        return condition()
