# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Measure a pipeline: medians, p95, stages, memory; one row a case, ready for a CSV file."""

from __future__ import annotations

import csv
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ood_perception.host_cpu import cpuinfo, instruction_sets
from ood_perception.in_flight import ahead

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ood_perception.pipeline import Pipeline
    from ood_perception.result import Result

FRAME_NS = 33_000_000
"""Between the stamps of two frames, for a profile with a memory."""

WANTS = ('heatmap', 'instances')
"""What is computed: what most nodes are asked for."""

TURN = 6
"""Batches of one pipeline before the next has its turn, or more where several are in flight."""

ROUNDED = {'openvino_bf16': 'bfloat16', 'openvino_int8': 'int8'}
"""Engines of a CPU that do not compute in float32."""


@dataclass
class Row:
    """One measured case."""

    profile: str  # name of the profile
    engine: str  # the engine that ran
    device: str  # name of the GPU or the processor
    isa: str  # instruction sets of the processor that may be used, '' on a GPU or where unknown
    precision: str  # of the segmentor
    size: str  # WIDTHxHEIGHT of the frames
    cameras: int  # frames in a batch
    ms_median: float  # of a batch, from its submission to its results
    ms_p95: float  # of a batch
    # frames (of all cameras together) per second: from the median, or with several batches in
    # flight from the time that a turn took, as the median of the turns
    fps: float
    memory_mb: float  # peak of the GPU's memory, or of the process where there is no GPU
    stages: dict[str, float] = field(default_factory=dict)  # median milliseconds per stage
    in_flight: int = 1  # batches that the pipeline worked on at once


@dataclass
class Turn:
    """Batches of one pipeline in a row."""

    totals: list[float] = field(default_factory=list)  # milliseconds of each
    stages: list[dict[str, float]] = field(default_factory=list)  # milliseconds of its stages
    seconds: float = 0.0  # of all


def measure(
    pipelines: Sequence[Pipeline],
    frames: Sequence[np.ndarray],
    cameras: int,
    runs: int,
    warm_up: int = 3,
) -> list[Row]:
    """
    Time pipelines on real frames, in turns: a machine that slows down slows all of them.

    Args:
        frames: uint8 (H, W, 3) RGB frames of one size, played in a loop; all cameras see them.
        cameras: frames in a batch.
        runs: batches of each pipeline that are timed, or a few more.
    """
    names = [f'camera {i}' for i in range(cameras)]

    def turn(pipeline: Pipeline, first: int, count: int) -> Turn:
        """Time batches; those before, as many as are in flight, fill the caches."""
        begun: dict[int, float] = {}

        def submit(number: int) -> Future[list[Result]]:
            batch = [frames[(number + i) % len(frames)] for i in range(cameras)]
            stamps: list[int | None] = [(number + 1) * FRAME_NS] * cameras
            begun[number] = time.perf_counter()
            return pipeline.submit(batch, names, wants=WANTS, stamps=stamps)

        done = Turn()
        numbers = range(first, first + pipeline.in_flight + count)
        for number, results in ahead(numbers, submit, pipeline.in_flight):
            now = time.perf_counter()
            if number < first + pipeline.in_flight:
                started = now
                continue
            done.totals.append(1e3 * (now - begun[number]))
            done.stages.append(results[0].timings)
        done.seconds = now - started
        return done

    memory = []
    for pipeline in pipelines:
        if pipeline.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(pipeline.device)
        turn(pipeline, 0, warm_up)
        memory.append(peak_memory_mb(pipeline.device))
    turns: list[list[Turn]] = [[] for _ in pipelines]
    for begin in range(0, runs, TURN):
        for pipeline, timed in zip(pipelines, turns, strict=True):
            # whole rounds of those in flight, or their number would tilt the rate
            rounds = -(-min(TURN, runs - begin) // pipeline.in_flight)
            timed.append(turn(pipeline, begin + warm_up, rounds * pipeline.in_flight))
    measured = zip(pipelines, turns, memory, strict=True)
    return [_row(*case, frames[0].shape, cameras) for case in measured]


def _row(
    pipeline: Pipeline, turns: list[Turn], memory: float, shape: tuple[int, ...], cameras: int
) -> Row:
    totals = [total for turn in turns for total in turn.totals]
    stages = [part for turn in turns for part in turn.stages]
    median, engine = float(np.median(totals)), pipeline.engine.name
    each = median
    if pipeline.in_flight > 1:
        each = float(np.median([1e3 * turn.seconds / len(turn.totals) for turn in turns]))
    cuda = pipeline.device.type == 'cuda'
    return Row(
        profile=pipeline.profile.name,
        engine=engine,
        device=device_name(pipeline.device),
        isa='' if cuda else ' '.join(instruction_sets()),
        precision=pipeline.profile.precision if cuda else ROUNDED.get(engine, 'float32'),
        size=f'{shape[1]}x{shape[0]}',
        cameras=cameras,
        ms_median=round(median, 2),
        ms_p95=round(float(np.percentile(totals, 95)), 2),
        fps=round(1e3 * cameras / each, 2),
        memory_mb=round(memory, 1),
        stages={
            name: round(float(np.median([s.get(name, 0.0) for s in stages])), 2)
            for name in stages[0]
        },
        in_flight=pipeline.in_flight,
    )


def device_name(device: torch.device) -> str:
    """Name of the GPU, or of the processor and how many threads torch uses on it."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    name = cpuinfo('model name') or platform.processor() or platform.machine()
    return f'{name}, {torch.get_num_threads()} threads'


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB: allocated on the GPU, or resident of this process without one."""
    if device.type == 'cuda':
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 if sys.platform != 'darwin' else 2**20)


def write_rows(path: str | Path, rows: Sequence[Row], command: str) -> None:
    """
    Append rows to a CSV file; a new file starts with the command and the versions as a comment.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stages = ('upload', 'segmentor', 'score', 'prompts', 'masks', 'download', 'total')
    flat = [
        {k: v for k, v in asdict(row).items() if k not in ('stages', 'in_flight')}
        | {f'{name}_ms': row.stages.get(name, 0.0) for name in stages}
        | {'in_flight': row.in_flight}
        for row in rows
    ]
    fresh = not path.exists()
    with path.open('a', newline='', encoding='utf-8') as file:
        if fresh:
            file.write(f'# {command} (torch {torch.__version__})\n')
        writer = csv.DictWriter(file, list(flat[0]))
        if fresh:
            writer.writeheader()
        writer.writerows(flat)
