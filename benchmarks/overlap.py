# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What overlap gives: frames a second of the node's worker with three stages that only sleep.

    python benchmarks/overlap.py --output benchmarks/results/overlap.csv

Decoding, computing and publishing take the same time each and no processor, as with a GPU that
computes while the driver and the middleware wait. One after the other is compared with
the worker, which does the three at once: the bound is one frame a stage's time.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkout  # noqa: F401
import numpy as np
import rclpy
import torch
from sensor_msgs.msg import Image
from table import append

from ood_perception.result import Result
from ood_perception.ros.camera_stream import CameraStream, Mailbox
from ood_perception.ros.health import Health
from ood_perception.ros.settings import Settings
from ood_perception.ros.worker import Worker
from ood_perception.scores import create_score

FIELDS = ('stage_ms', 'one_after_the_other_fps', 'worker_fps', 'ratio', 'bound_fps', 'command')


class Sleeping:
    """A pipeline that sleeps."""

    device = torch.device('cpu')
    engine = SimpleNamespace(name='sleeping', live=False)
    score = create_score('llr')

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, images: list[Any], *_: Any, **__: Any) -> list[Result]:
        time.sleep(self.seconds)
        return [Result(timings={}) for _ in images]

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def warm_up(self, *_: Any, **__: Any) -> None:
        pass

    def close(self) -> None:
        pass


def new_worker(seconds: float) -> Worker:
    """A worker all of whose stages sleep."""
    pipeline = Sleeping(seconds)
    outputs: Any = {'': SimpleNamespace(wants=lambda: {'heatmap'})}
    mailbox = Mailbox([CameraStream('')])
    worker = Worker(mailbox, outputs, Settings(), Health(lambda *_: None), lambda step: pipeline)

    def decode(*_: Any) -> Any:
        time.sleep(seconds)
        return np.zeros((48, 64, 3), np.uint8)

    def publish(*_: Any) -> None:
        time.sleep(seconds)

    worker.leaves_processors = lambda _: True
    worker._decode, worker.publisher.publish = decode, publish  # type: ignore[method-assign]
    return worker


def rate(seconds: float, duration: float, threads: bool) -> float:
    """Frames a second for a camera that is faster than all stages."""
    worker = new_worker(seconds)
    (stream,) = worker.mailbox.streams
    if threads:
        worker.start()
    else:
        worker.pipeline = Sleeping(seconds)
    end, stamps = time.monotonic() + duration, itertools.count(1)
    while time.monotonic() < end:
        message = Image()
        message.header.stamp.sec = next(stamps)
        worker.mailbox.put(stream, message)
        if threads:
            time.sleep(seconds / 8)
        else:
            batch = worker.decode(worker.mailbox.take(1, 1.0))
            worker.publish(batch, worker.compute(batch))
    done = list(stream.finished)
    worker.stop()
    return (len(done) - 1) / (done[-1] - done[0])


def main() -> None:
    """Print the row and append it to the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--milliseconds', type=float, default=20.0, help='of each stage')
    parser.add_argument('--seconds', type=float, default=4.0)
    parser.add_argument('--output', type=Path)
    arguments = parser.parse_args()
    rclpy.init()
    stage = arguments.milliseconds / 1e3
    alone, together = (rate(stage, arguments.seconds, threads) for threads in (False, True))
    row = {
        'stage_ms': arguments.milliseconds,
        'one_after_the_other_fps': round(alone, 1),
        'worker_fps': round(together, 1),
        'ratio': round(together / alone, 2),
        'bound_fps': round(1 / stage, 1),
        'command': 'python benchmarks/overlap.py',
    }
    print(row)
    if arguments.output:
        append(arguments.output, FIELDS, [row])
    rclpy.shutdown()


if __name__ == '__main__':
    main()
