# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What ROS costs: frames per second of the node (DDS in, DDS out) against those of the bare pipeline.

Both run the same profile on the same frames in turns, in short rounds, so that the ratio holds
even where the absolute numbers do not: the speed of a shared machine changes within seconds. The
node is a process of its own; this one is camera and listener.

    python benchmarks/node_overhead.py --profile compact --size 480x360
"""

from __future__ import annotations

import argparse
import array
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from ood_perception.ros.process import prepare
from ood_simulation import ProvingGround

OUTPUTS = ('heatmap', 'instances')


def frames(width: int, height: int, count: int = 16) -> list[np.ndarray]:
    """Frames of a drive on the proving ground."""
    ground = ProvingGround(seed=3, width=width, height=height, rate=10.0)
    return [frame.image for frame in itertools.islice(ground, count)]


def bare_rate(pipeline: Any, images: list[np.ndarray], seconds: float) -> float:
    """Frames per second of the pipeline alone, with heatmap and instances."""
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        image, stamp = images[done % len(images)], (done + 1) * 33_000_000
        pipeline([image], ['bare'], wants=set(OUTPUTS), stamps=[stamp])
        done += 1
    return done / (time.perf_counter() - start)


class Camera:
    """Publishes frames at a rate and listens to the outputs."""

    def __init__(self, node: Any, name: str, images: list[np.ndarray], rate: float) -> None:
        from sensor_msgs.msg import Image

        self.node, self.period, self.images = node, 1.0 / rate, images
        self.publisher = node.create_publisher(Image, '/camera/image_raw', 1)
        self.messages = []
        for image in images:
            height, width = image.shape[:2]
            data = array.array('B', image.tobytes())
            self.messages.append(
                Image(height=height, width=width, encoding='rgb8', step=width * 3, data=data)
            )
        self.seen = dict.fromkeys(OUTPUTS, 0)
        self.sent = 0
        self.latencies: list[float] = []
        for topic in OUTPUTS:
            node.create_subscription(
                Image, f'/{name}/{topic}', lambda m, t=topic: self._arrived(t, m), 10
            )

    def _arrived(self, topic: str, message: Any) -> None:
        self.seen[topic] += 1
        if topic == OUTPUTS[-1]:
            sent = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
            self.latencies.append((time.time() - sent) * 1e3)

    def run(self, seconds: float) -> float:
        """Outputs of each kind per second while frames are published for `seconds`."""
        import rclpy

        before, start = self.seen[OUTPUTS[-1]], time.perf_counter()
        due = start
        while (now := time.perf_counter()) - start < seconds:
            if now >= due:
                message = self.messages[self.sent % len(self.messages)]
                stamp = time.time_ns()
                message.header.stamp.sec = stamp // 1_000_000_000
                message.header.stamp.nanosec = stamp % 1_000_000_000
                self.publisher.publish(message)
                self.sent += 1
                due = max(due + self.period, now)
            rclpy.spin_once(self.node, timeout_sec=max(min(due - time.perf_counter(), 0.02), 0))
        return (self.seen[OUTPUTS[-1]] - before) / (time.perf_counter() - start)


@contextlib.contextmanager
def camera_of_node(
    name: str, images: list[np.ndarray], rate: float, **parameters: Any
) -> Iterator[Camera]:
    """Run a node with these parameters, and its camera once it has answered; rclpy is running."""
    import rclpy

    height, width = images[0].shape[:2]
    given = {'warm_up_size': [width, height], **parameters}
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'ood_perception.ros.main', '--ros-args'),
            *('-r', f'__node:={name}', '-r', 'image:=/camera/image_raw'),
            *(part for key, value in given.items() for part in ('-p', f'{key}:={value}')),
            *('--log-level', 'warn'),
        ]
    )
    node = rclpy.create_node(f'{name}_camera')
    try:
        camera = Camera(node, name, images, rate)
        while not camera.seen[OUTPUTS[-1]]:
            if process.poll() is not None:
                raise SystemExit('the node ended')
            camera.run(0.5)
        yield camera
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        node.destroy_node()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--size', default='480x360', help='WIDTHxHEIGHT of the frames')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--seconds', type=float, default=4.0, help='of each half of a round')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--in-flight', type=int, default=1, help='frames at once in the node')
    parser.add_argument('--rate', type=float, default=0.0, help='of the camera; 0 = 1.2 x bare')
    parser.add_argument('--least', type=float, default=0.85, help='ratio below which to exit 1')
    arguments = parser.parse_args()
    width, height = (int(v) for v in arguments.size.split('x'))

    prepare()
    os.environ.setdefault('ROS_DOMAIN_ID', '97')
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    import rclpy

    from ood_perception.pipeline import Pipeline

    images = frames(width, height)
    pipeline = Pipeline.from_profile(arguments.profile, arguments.device)
    pipeline.warm_up([(height, width)])
    bare_rate(pipeline, images, 2.0)
    rate = arguments.rate or 1.2 * bare_rate(pipeline, images, 3.0)

    rclpy.init()
    name = 'ood_overhead'
    rows = []
    parameters = {
        'profile': arguments.profile,
        'device': arguments.device,
        'frames_in_flight': arguments.in_flight,
    }
    with camera_of_node(name, images, rate, **parameters) as camera:
        camera.run(2.0)
        camera.latencies.clear()
        for _ in tqdm(range(arguments.rounds), desc='rounds', disable=not sys.stderr.isatty()):
            bare = bare_rate(pipeline, images, arguments.seconds)
            node = camera.run(arguments.seconds)
            rows.append({'bare_fps': bare, 'node_fps': node, 'ratio': node / bare})
    rclpy.try_shutdown()
    late = np.percentile(camera.latencies, (50, 95)) if camera.latencies else (0.0, 0.0)
    summary = {
        'profile': arguments.profile,
        'size': arguments.size,
        'in_flight': arguments.in_flight,
        'camera_fps': round(rate, 2),
        'bare_fps': round(statistics.median(r['bare_fps'] for r in rows), 2),
        'node_fps': round(statistics.median(r['node_fps'] for r in rows), 2),
        'ratio': round(statistics.median(r['ratio'] for r in rows), 3),
        'ratios': [round(r['ratio'], 3) for r in rows],
        'latency_ms_p50': round(float(late[0]), 1),
        'latency_ms_p95': round(float(late[1]), 1),
        'cpus': os.cpu_count(),
        'load': round(os.getloadavg()[0], 1),
    }
    print(json.dumps(summary, indent=2))
    return 0 if summary['ratio'] >= arguments.least else 1


if __name__ == '__main__':
    sys.exit(main())
