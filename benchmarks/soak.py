# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Many cameras for a long time: fairness, drops, and whether memory, threads and files stay flat.

    python benchmarks/soak.py --minutes 30 --cameras 4 --rate 15 --size 640x480
    python benchmarks/soak.py --minutes 2                          (the short form for CI)

Exits 1 when memory rises by more than 1 MB per 10,000 frames beyond what the warm-up took (checked
once there are enough frames to tell), when threads or files grow, or when the cameras are served
unevenly.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
from tqdm import tqdm

from ood_perception.ros import memory

ENOUGH_FRAMES = 2000


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--minutes', type=float, default=30.0)
    parser.add_argument('--warm-up', type=float, default=0.25, help='part that is not judged')
    parser.add_argument('--cameras', type=int, default=4)
    parser.add_argument('--rate', type=float, default=15.0)
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--slope', type=float, default=1.0, help='MB per 10,000 frames allowed')
    parser.add_argument('--out', default='', help='CSV of the samples')
    return parser.parse_args()


class Rig:
    """Cameras, listeners and the node's own diagnostics."""

    def __init__(self, node: Any, name: str, cameras: list[str], width: int, height: int) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import Image

        rng = np.random.default_rng(0)
        self.node, self.name = node, name
        self.publishers = [node.create_publisher(Image, f'/{c}/image_raw', 1) for c in cameras]
        self.messages = []
        for camera in cameras:
            small = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
            pixels = np.kron(small, np.ones((16, 16, 1), np.uint8))
            h, w = pixels.shape[:2]
            data = array.array('B', pixels.tobytes())
            message = Image(height=h, width=w, encoding='rgb8', step=w * 3, data=data)
            message.header.frame_id = camera
            self.messages.append(message)
            for topic in ('heatmap', 'instances'):
                node.create_subscription(Image, f'/{name}/{camera}/{topic}', self._listen, 5)
        self.outputs = 0
        self.samples: list[dict[str, float]] = []
        self.cameras: dict[str, dict[str, float]] = {}
        node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 10)

    def _listen(self, message: Any) -> None:
        self.outputs += 1

    def publish(self) -> None:
        stamp = time.time_ns()
        for publisher, message in zip(self.publishers, self.messages, strict=True):
            message.header.stamp.sec = stamp // 1_000_000_000
            message.header.stamp.nanosec = stamp % 1_000_000_000
            publisher.publish(message)

    def _diagnose(self, message: Any) -> None:
        sample = {'time': time.monotonic(), 'processed': 0.0, 'dropped': 0.0, 'received': 0.0}
        late = []
        for status in message.status:
            node, _, part = status.name.partition(': ')
            if node != self.name:
                continue
            values = {v.key: v.value for v in status.values}
            if part == 'pipeline':
                for key in ('memory_mb', 'threads', 'open_files'):
                    sample[key] = float(values.get(key, 'nan'))
                continue
            books = {k: float(values[k]) for k in ('processed', 'dropped', 'received')}
            self.cameras[part] = books
            for key, value in books.items():
                sample[key] += value
            late.append(float(values.get('total_ms_p95', 'nan')))
        if 'memory_mb' in sample:
            sample['total_ms_p95'] = float(np.nanmax(late)) if late else float('nan')
            self.samples.append(sample)


def judge(samples: list[dict[str, float]], cameras: dict[str, Any], skip: float) -> dict[str, Any]:
    """Figures over the part of the run after the warm-up."""
    kept = samples[int(len(samples) * skip) :]
    frames = np.array([s['processed'] for s in kept])
    memory_mb = np.array([s['memory_mb'] for s in kept])
    slope = float(np.polyfit(frames, memory_mb, 1)[0] * 10_000) if np.ptp(frames) else 0.0
    served = {name: int(books['processed']) for name, books in cameras.items()}
    span = kept[-1]['time'] - kept[0]['time']
    return {
        'frames': int(frames[-1]),
        'judged_frames': int(np.ptp(frames)),
        'fps': round(float(np.ptp(frames)) / max(span, 1e-9), 2),
        'memory_mb': [float(memory_mb[0]), float(memory_mb[-1])],
        'memory_mb_per_10000_frames': round(slope, 2),
        'threads': [kept[0]['threads'], kept[-1]['threads']],
        'open_files': [kept[0]['open_files'], kept[-1]['open_files']],
        'total_ms_p95': [kept[0]['total_ms_p95'], kept[-1]['total_ms_p95']],
        'processed': served,
        'fairness': round(min(served.values()) / max(max(served.values()), 1), 3),
        'received': {n: int(b['received']) for n, b in cameras.items()},
        'dropped': {n: int(b['dropped']) for n, b in cameras.items()},
    }


def main() -> int:
    arguments = parse()
    width, height = (int(v) for v in arguments.size.split('x'))
    memory.prepare()
    os.environ.setdefault('ROS_DOMAIN_ID', '96')
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    import rclpy

    rclpy.init()
    name, cameras = 'ood_soak', [f'camera_{i}' for i in range(arguments.cameras)]
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'ood_perception.ros.node', '--ros-args'),
            *('-r', f'__node:={name}', '-p', f'profile:={arguments.profile}'),
            *('-p', f'cameras:=[{", ".join(cameras)}]', '-p', f'device:={arguments.device}'),
            *('-p', f'warm_up_size:=[{width}, {height}]', '--log-level', 'warn'),
        ]
    )
    rig = Rig(rclpy.create_node('soak_rig'), name, cameras, width, height)
    try:
        while not rig.outputs:
            if process.poll() is not None:
                raise SystemExit('the node ended')
            rig.publish()
            rclpy.spin_once(rig.node, timeout_sec=0.2)
        rig.samples.clear()
        start = due = time.monotonic()
        end = start + arguments.minutes * 60
        with tqdm(total=round(end - start), unit='s', disable=not sys.stderr.isatty()) as bar:
            while (now := time.monotonic()) < end:
                if process.poll() is not None:
                    raise SystemExit(f'the node died with {process.returncode}')
                if now >= due:
                    rig.publish()
                    due = max(due + 1 / arguments.rate, now)
                rclpy.spin_once(rig.node, timeout_sec=max(min(due - time.monotonic(), 0.05), 0))
                bar.update(int(now - start) - bar.n)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(60)
        rclpy.try_shutdown()
    if arguments.out:
        keys = list(rig.samples[0])
        lines = [','.join(keys)] + [','.join(str(s[k]) for k in keys) for s in rig.samples]
        with open(arguments.out, 'w', encoding='utf-8') as file:
            file.write('\n'.join(lines) + '\n')
    result = judge(rig.samples, rig.cameras, arguments.warm_up)
    problems = [] if code == 0 else [f'the node ended with {code}']
    if result['judged_frames'] >= ENOUGH_FRAMES:
        if result['memory_mb_per_10000_frames'] > arguments.slope:
            problems.append('memory rises')
    elif result['memory_mb'][1] - result['memory_mb'][0] > 20:
        problems.append('memory rises')
    problems += [
        f'{key} grow' for key in ('threads', 'open_files') if result[key][1] > result[key][0] + 2
    ]
    if result['fairness'] < 0.8:
        problems.append('cameras are served unevenly')
    print(json.dumps({**vars(arguments), **result, 'problems': problems}, indent=2))
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
