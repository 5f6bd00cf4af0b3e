# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A long run at full rate: whether memory, threads, file handles and latency of the node stay flat.

    python benchmarks/soak.py --minutes 30 --output benchmarks/results/soak.csv
    python benchmarks/soak.py --frames 20000 --cameras 1 --rate 100
    python benchmarks/soak.py --minutes 2                          (the short form for CI)

Samples are taken once a second: resident memory, threads, file handles of the node as the kernel
has them, frames from its /diagnostics, latency from the stamp of an image to the arrival
of its heatmap. Slopes are straight lines through what follows the warm-up. Exits 1 when memory
rises by more than 1 MB per 10,000 frames (checked once there are enough frames to tell), when
threads or file handles grow, when a camera is served unevenly, or when the node does not end well.
"""

from __future__ import annotations

import argparse
import array
import csv
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ood_perception.ros.process import prepare

ENOUGH_FRAMES = 2000
"""Judged frames below which a slope says little; the difference is judged then."""

SHORT_RISE_MB = 20.0
"""Rise allowed over a run that is too short for a slope."""

FIGURES = ('rss_mb', 'threads', 'open_files', 'latency_ms_p50', 'latency_ms_p95')


def options(description: str, minutes: float) -> argparse.ArgumentParser:
    """Options that all long runs share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--minutes', type=float, default=minutes)
    parser.add_argument('--cameras', type=int, default=4)
    parser.add_argument('--rate', type=float, default=15.0, help='frames per second and camera')
    parser.add_argument('--size', default='640x480')
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--warm-up', type=float, default=0.25, help='part that is not judged')
    parser.add_argument('--output', '--out', type=Path, help='CSV file to write')
    return parser


class Rig:
    """Cameras, listeners, and what they and the kernel know of the node."""

    def __init__(self, node: Any, name: str, cameras: list[str], width: int, height: int) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import Image

        rng = np.random.default_rng(0)
        self.node, self.name, self.pid = node, name, 0
        self.publishers = [node.create_publisher(Image, f'/{c}/image_raw', 1) for c in cameras]
        self.messages = []
        for camera in cameras:
            small = rng.integers(0, 256, (-(-height // 16), -(-width // 16), 3), dtype=np.uint8)
            pixels = np.kron(small, np.ones((16, 16, 1), np.uint8))[:height, :width]
            data = array.array('B', pixels.tobytes())
            message = Image(height=height, width=width, encoding='rgb8', step=width * 3, data=data)
            message.header.frame_id = camera
            self.messages.append(message)
            node.create_subscription(Image, f'/{name}/{camera}/heatmap', self._listen, 5)
            node.create_subscription(Image, f'/{name}/{camera}/instances', lambda _: None, 5)
        self.outputs = 0
        self.ages: list[float] = []
        self.samples: list[dict[str, float]] = []
        self.cameras: dict[str, dict[str, float]] = {}
        node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 10)

    def _listen(self, message: Any) -> None:
        self.outputs += 1
        stamp = message.header.stamp
        self.ages.append(time.time() * 1e3 - (stamp.sec * 1e3 + stamp.nanosec / 1e6))

    def publish(self, number: int) -> None:
        """Send a frame of one camera."""
        stamp = time.time_ns()
        message = self.messages[number]
        message.header.stamp.sec = stamp // 1_000_000_000
        message.header.stamp.nanosec = stamp % 1_000_000_000
        self.publishers[number].publish(message)

    def _diagnose(self, message: Any) -> None:
        known = False
        for status in message.status:
            node, _, part = status.name.partition(': ')
            if node != f'/{self.name}' or part == 'pipeline':
                continue
            values = {v.key: v.value for v in status.values}
            self.cameras[part] = {
                k: float(values[k]) for k in ('processed', 'dropped', 'received')
            }
            known = True
        if not (known and self.pid and self.ages):
            return
        ages, self.ages = self.ages, []
        totals = {k: sum(c[k] for c in self.cameras.values()) for k in ('processed', 'dropped')}
        p50, p95 = np.percentile(ages, [50, 95])
        self.samples.append(
            {
                'seconds': time.monotonic(),
                **totals,
                **of_process(self.pid),
                'latency_ms_p50': round(float(p50), 2),
                'latency_ms_p95': round(float(p95), 2),
            }
        )


def of_process(pid: int) -> dict[str, float]:
    """Resident memory in MB, threads and open files of a process (Linux)."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return {
        'rss_mb': round(pages * os.sysconf('SC_PAGE_SIZE') / 2**20, 3),
        'threads': len(os.listdir(f'/proc/{pid}/task')),
        'open_files': len(os.listdir(f'/proc/{pid}/fd')),
    }


def run(
    arguments: argparse.Namespace, name: str, enough: Callable[[Rig], bool]
) -> tuple[Rig, int]:
    """
    Feed a node of its own until `minutes` are over or `enough` says so.

    Returns:
        The rig with its samples, and the exit code of the node after SIGINT.

    """
    width, height = (int(v) for v in arguments.size.split('x'))
    prepare()
    os.environ.setdefault('ROS_DOMAIN_ID', '96')
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    import rclpy

    rclpy.init()
    cameras = [f'camera_{i}' for i in range(arguments.cameras)]
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'ood_perception.ros.main', '--ros-args'),
            *('-r', f'__node:={name}', '-p', f'profile:={arguments.profile}'),
            *('-p', f'cameras:=[{", ".join(cameras)}]', '-p', f'device:={arguments.device}'),
            *('-p', f'warm_up_size:=[{width}, {height}]', '--log-level', 'warn'),
        ]
    )
    rig = Rig(rclpy.create_node(f'{name}_rig'), name, cameras, width, height)
    try:
        while not rig.outputs:
            if process.poll() is not None:
                raise SystemExit(f'the node ended with {process.returncode}')
            for number in range(len(cameras)):
                rig.publish(number)
            rclpy.spin_once(rig.node, timeout_sec=0.2)
        rig.pid = process.pid
        rig.ages.clear()
        start = time.monotonic()
        end = start + arguments.minutes * 60
        # Cameras are not in step, as real ones are not.
        period = 1 / arguments.rate
        due = [start + period * i / len(cameras) for i in range(len(cameras))]
        with tqdm(total=round(end - start), unit='s', disable=not sys.stderr.isatty()) as bar:
            while (now := time.monotonic()) < end and not enough(rig):
                if process.poll() is not None:
                    raise SystemExit(f'the node died with {process.returncode}')
                number = int(np.argmin(due))
                if now >= due[number]:
                    rig.publish(number)
                    due[number] = max(due[number] + period, now)
                left = min(due) - time.monotonic()
                rclpy.spin_once(rig.node, timeout_sec=max(min(left, 0.05), 0))
                bar.update(int(now - start) - bar.n)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        code = process.wait(60)
        rclpy.try_shutdown()
    if not rig.samples:
        raise SystemExit('no diagnostics arrived: the run was too short')
    return rig, code


def judged(samples: list[dict[str, float]], skip: float) -> dict[str, Any]:
    """First and last value and slope per 10,000 frames of each figure, after the warm-up."""
    kept = samples[int(len(samples) * skip) :]
    frames = np.array([s['processed'] for s in kept])
    span = kept[-1]['seconds'] - kept[0]['seconds']
    tenth = max(1, len(kept) // 10)
    rows = {}
    for name in FIGURES:
        values = np.array([s[name] for s in kept])
        slope = float(np.polyfit(frames, values, 1)[0] * 1e4) if np.ptp(frames) else 0.0
        ends = float(np.median(values[:tenth])), float(np.median(values[-tenth:]))
        rows[name] = (*ends, float(values.max()), slope)
    return {
        'rows': rows,
        'frames': int(np.ptp(frames)),
        'fps': float(np.ptp(frames)) / max(span, 1e-9),
        'minutes': span / 60,
    }


def fairness(cameras: dict[str, dict[str, float]]) -> float:
    """Fewest frames of a camera over most, 0..1."""
    counts = [books['processed'] for books in cameras.values()]
    return min(counts) / max(max(counts), 1.0)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a CSV whose first line is the command."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='', encoding='utf-8') as file:
        file.write(f'# {shlex.join(["python", *sys.argv])} ({os.cpu_count()} CPUs)\n')
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    parser = options(__doc__.splitlines()[1], 30.0)
    parser.add_argument('--frames', type=int, default=0, help='processed frames to end after')
    parser.add_argument('--slope', type=float, default=1.0, help='MB per 10,000 frames allowed')
    arguments = parser.parse_args()
    if arguments.frames and '--minutes' not in ' '.join(sys.argv):
        arguments.minutes = 24 * 60.0
    rig, code = run(
        arguments,
        'ood_soak',
        lambda rig: bool(
            arguments.frames and rig.samples and rig.samples[-1]['processed'] >= arguments.frames
        ),
    )
    begin = rig.samples[0]['seconds']
    for sample in rig.samples:
        sample['seconds'] = round(sample['seconds'] - begin, 2)
    if arguments.output:
        write(arguments.output, rig.samples)
    found = judged(rig.samples, arguments.warm_up)
    rows = found['rows']
    problems = [] if code == 0 else [f'the node ended with {code} on SIGINT']
    rise = rows['rss_mb'][1] - rows['rss_mb'][0]
    if found['frames'] >= ENOUGH_FRAMES:
        if rows['rss_mb'][3] > arguments.slope:
            problems.append('memory rises')
    elif rise > SHORT_RISE_MB:
        problems.append('memory rises')
    problems += [f'{k} grow' for k in ('threads', 'open_files') if rows[k][1] > rows[k][0] + 2]
    if fairness(rig.cameras) < 0.8:
        problems.append('cameras are served unevenly')
    table = Table(
        title=f'{found["frames"]} frames in {found["minutes"]:.1f} minutes after the warm-up, '
        f'{found["fps"]:.1f} frames/s of {arguments.cameras} x {arguments.rate:g} Hz '
        f'{arguments.size}, profile {arguments.profile}'
    )
    for column in ('figure', 'first tenth', 'last tenth', 'largest', 'slope per 10,000 frames'):
        table.add_column(column, justify='left' if column == 'figure' else 'right')
    for name in FIGURES:
        first, last, largest, slope = rows[name]
        table.add_row(name, f'{first:.1f}', f'{last:.1f}', f'{largest:.1f}', f'{slope:+.3f}')
    table.add_row('fewest/most frames of a camera', '', f'{fairness(rig.cameras):.3f}', '', '')
    console = Console(width=110)
    console.print(table)
    console.print('; '.join(problems) or 'flat')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
