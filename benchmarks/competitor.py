# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What another process costs: frames per second of the node beside one that takes a core whole.

Quiet and busy rounds take turns, so that the ratio holds on a machine whose speed changes. The
other process stays on the first core, or with --roam goes where the system puts it.

    python benchmarks/competitor.py --threads 0,1
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from node_overhead import camera_of_node, frames
from table import append

from ood_perception.host_cpu import instruction_sets
from ood_perception.ros.process import prepare

FIELDS = ('threads', 'roam', 'isa', 'cpus', 'quiet_fps', 'busy_fps', 'ratio', 'command')


def take_a_core(roam: bool) -> subprocess.Popen[bytes]:
    """Start a process that computes without end."""
    process = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    if not roam:
        os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
    return process


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--size', default='480x360', help='WIDTHxHEIGHT of the frames')
    parser.add_argument('--threads', default='0', help='values of the parameter, by commas')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=4.0, help='of each half of a round')
    parser.add_argument('--roam', action='store_true', help='do not pin the other process')
    parser.add_argument('--least', type=float, default=0.6, help='ratio below which to exit 1')
    parser.add_argument('--csv', type=Path, default=None, help='append the rows to this file')
    arguments = parser.parse_args()
    width, height = (int(v) for v in arguments.size.split('x'))
    prepare()
    os.environ.setdefault('ROS_DOMAIN_ID', '96')
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    import rclpy

    rclpy.init()
    rows = []
    for threads in arguments.threads.split(','):
        name = f'ood_competitor_{threads}'
        quiet, busy, parameters = [], [], {'profile': arguments.profile, 'threads': threads}
        with camera_of_node(name, frames(width, height), 30.0, **parameters) as camera:
            camera.run(3.0)
            for _ in range(arguments.rounds):
                quiet.append(camera.run(arguments.seconds))
                other = take_a_core(arguments.roam)
                try:
                    busy.append(camera.run(arguments.seconds))
                finally:
                    other.kill()
                    other.wait()
        rows.append(
            {
                'threads': threads,
                'roam': arguments.roam,
                'isa': '+'.join(instruction_sets()),
                'cpus': os.cpu_count(),
                'quiet_fps': statistics.median(quiet),
                'busy_fps': statistics.median(busy),
                'ratio': statistics.median(b / q for q, b in zip(quiet, busy, strict=True)),
                'command': ' '.join(['python', *sys.argv]),
            }
        )
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()})
    if arguments.csv:
        append(arguments.csv, FIELDS, rows)
    rclpy.try_shutdown()
    return 0 if max(row['ratio'] for row in rows) >= arguments.least else 1


if __name__ == '__main__':
    sys.exit(main())
