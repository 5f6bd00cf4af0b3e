# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
How long a robot waits: seconds from the start of the node's process to its first instances.

The camera runs already, on the same cores. The first start of a round finds an empty folder of
engines (nothing measured, no network converted), the second finds what the first has left there.

    python benchmarks/start.py --rounds 3 --output benchmarks/results/start.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from node_overhead import OUTPUTS, Camera, frames

from ood_evaluation.speed import device_name
from ood_perception.host_cpu import instruction_sets
from ood_perception.ros.process import prepare

PATIENCE = 120.0  # seconds after which a start has failed
SETTLED = 40.0  # seconds that a first start gets to measure engines and keep what it found


def started(camera: Camera, name: str, profile: str, cache: str, more: float) -> float:
    """Seconds from a node's start to its first instances; it runs `more` seconds after them."""
    command = [sys.executable, '-m', 'ood_perception.ros.main', '--ros-args']
    command += ['--log-level', 'warn', '-p', f'profile:={profile}']
    command += ['-r', f'__node:={name}', '-r', 'image:=/camera/image_raw']
    camera.seen = dict.fromkeys(OUTPUTS, 0)
    begin = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, 'OOD_ENGINE_CACHE': cache})
    try:
        while not camera.seen['instances']:
            if process.poll() is not None or time.perf_counter() - begin > PATIENCE:
                raise SystemExit('the node ended or said nothing')
            camera.run(camera.period)  # one image
        seconds = time.perf_counter() - begin
        camera.run(more)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    return seconds


def main() -> None:
    """Print and write the seconds of first and next starts."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--rate', type=float, default=15.0, help='of the camera, Hz')
    parser.add_argument('--output', type=Path, help='CSV file to write')
    arguments = parser.parse_args()
    prepare()
    os.environ.setdefault('ROS_DOMAIN_ID', '96')
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    import rclpy

    rclpy.init()
    name = 'ood_start'
    camera = Camera(rclpy.create_node(f'{name}_camera'), name, frames(480, 360), arguments.rate)
    times: dict[str, list[float]] = {'first': [], 'next': []}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for kind, more in (('first', SETTLED), ('next', 1.0)):
                times[kind].append(started(camera, name, arguments.profile, cache, more))
                print(f'{kind} start: {times[kind][-1]:.1f} s', flush=True)
    device = device_name(torch.device('cpu'))
    isa = ' '.join(instruction_sets())
    rows = [
        {
            'start': kind,
            'profile': arguments.profile,
            'seconds': round(statistics.median(found), 2),
            'all': ' '.join(f'{value:.1f}' for value in found),
            'device': device,
            'isa': isa,
        }
        for kind, found in times.items()
    ]
    for row in rows:
        print(f'{row["start"]}: {row["seconds"]} s ({row["all"]})')
    if arguments.output is not None:
        with arguments.output.open('w', newline='', encoding='utf-8') as file:
            file.write(f'# {shlex.join(["python", *sys.argv])}\n')
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
