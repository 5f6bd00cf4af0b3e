# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Masks at the camera's rate: what `detect_rate` gives, and how far moved masks are off.

The node runs with a camera of 30 Hz and a listener on the same cores, with and without
`detect_rate`. Then a pipeline looks at every frame of rendered drives, and what it found in every
fifth is moved to the four between and compared with what it found there itself, object by object.
How well it agrees with itself says what to expect: it looks at a picture and at the same one moved
by two pixels.

    python benchmarks/propagation.py --output benchmarks/results/propagation.csv
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

import numpy as np
from node_overhead import camera_of_node, frames
from table import append
from tqdm import tqdm

from ood_perception.host_cpu import instruction_sets
from ood_perception.masks.propagation import Propagator
from ood_perception.pipeline import Pipeline
from ood_perception.ros.process import prepare
from ood_simulation import ProvingGround


def live(profile: str, size: tuple[int, int], detect_rate: float, seconds: float) -> list[float]:
    """Outputs a second of the node with a camera of 30 Hz; latency p50 and p95 in ms."""
    # There and back again, so that nothing jumps.
    images = frames(*size, 60)
    images += images[::-1]
    parameters = {'profile': profile, 'detect_rate': detect_rate}
    with camera_of_node('ood_propagation', images, 30.0, **parameters) as camera:
        camera.run(5.0)
        camera.latencies.clear()
        rate = camera.run(seconds)
    return [rate, *np.percentile(camera.latencies, (50, 95)).tolist()]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def overlaps(
    profile: str, size: tuple[int, int], drives: int, every: int
) -> tuple[list[float], list[float]]:
    """
    IoU of objects in rendered drives.

    First of each that was moved to a frame and found there, by its id; then of each that was found
    in a picture and in the same one moved by two pixels, with the one that covers most of it.
    """
    pipeline, found, again = Pipeline.from_profile(profile), [], []
    for seed in tqdm(range(700_700, 700_700 + drives), disable=not sys.stderr.isatty()):
        drive = ProvingGround(seed=seed, width=size[0], height=size[1], rate=30.0, unknowns=2.5)
        follow = Propagator()
        for index in range(90):
            image, stamp = drive.frame(index).image, (index + 1) * 33_333_333
            (result,) = pipeline(image, [str(seed)], stamps=[stamp])
            follow.saw(stamp, image)
            if index % every == 0:
                follow.found(stamp, result)
            elif (moved := follow.at(stamp)) is not None:
                for name in set(moved.ids.tolist()) & set(result.ids.tolist()):
                    found.append(overlap(moved.instances == name, result.instances == name))
            if index % 6 == 0:
                here, there = pipeline([image, np.roll(image, 2, 1)], ['', ' '])
                back = np.roll(there.instances, -2, 1)
                for name in here.ids:
                    mask = here.instances == name
                    counts = np.bincount(back[mask], minlength=2)[1:]
                    if counts.any():
                        again.append(overlap(mask, back == counts.argmax() + 1))
    return found, again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--size', default='480x360', help='WIDTHxHEIGHT of the frames')
    parser.add_argument('--detect-rate', type=float, default=4.0)
    parser.add_argument('--seconds', type=float, default=20.0, help='of each run of the node')
    parser.add_argument('--drives', type=int, default=6)
    parser.add_argument('--every', type=int, default=5, help='frames from detection to detection')
    parser.add_argument('--output', type=Path)
    arguments = parser.parse_args()
    width, height = (int(v) for v in arguments.size.split('x'))
    prepare()
    os.environ.setdefault('ROS_DOMAIN_ID', '96')
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    import rclpy

    size = width, height
    found, again = overlaps(arguments.profile, size, arguments.drives, arguments.every)
    rclpy.init()
    rows = []
    for rate in (0.0, arguments.detect_rate):
        masks, usual, late = live(arguments.profile, size, rate, arguments.seconds)
        rows.append(
            {
                'profile': arguments.profile,
                'cpu': ' '.join(instruction_sets()),
                'detect_rate': rate,
                'masks_per_second_of_30': round(masks, 1),
                'latency_ms_p50': round(usual, 1),
                'latency_ms_p95': round(late, 1),
                'moved_objects': len(found) if rate else '',
                'mean_iou': round(float(np.mean(found)), 3) if rate else '',
                'same_picture_iou': round(float(np.mean(again)), 3) if rate else '',
                'command': f'python {shlex.join(sys.argv)}',
            }
        )
        print(rows[-1])
    rclpy.try_shutdown()
    if arguments.output:
        append(arguments.output, list(rows[0]), rows)


if __name__ == '__main__':
    main()
