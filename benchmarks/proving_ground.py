# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Speed of the proving ground on one core: rendered frames per second of CPU time, sprites included.

    OMP_NUM_THREADS=1 python benchmarks/proving_ground.py [--seconds 10] [--seeds 1000 1001 ...]
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import cv2

from ood_perception.host_memory import keep_freed_memory
from ood_simulation import ProvingGround


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=10.0)
    parser.add_argument('--seeds', type=int, nargs='*', default=list(range(1000, 1010)))
    parser.add_argument('--csv', type=Path, default=None)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    keep_freed_memory()
    rows = []
    for seed in options.seeds:
        begin = time.process_time()
        ground = ProvingGround(seed)
        ready = time.process_time()
        count = sum(1 for _ in ground.drive(options.seconds))
        taken = time.process_time() - ready
        rows.append(
            {
                'seed': seed,
                'place': ground.style.place,
                'weather': ground.style.weather,
                'start_s': round(ready - begin, 2),
                'frames': count,
                'fps_one_core': round(count / taken, 1),
                'times_real_time': round(count / taken / ground.rate, 2),
            }
        )
        print(rows[-1], flush=True)
    speeds = sorted(row['fps_one_core'] for row in rows)
    print(f'median {speeds[len(speeds) // 2]} fps, slowest {speeds[0]} fps')
    if options.csv:
        with open(options.csv, 'w', newline='') as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == '__main__':
    main()
