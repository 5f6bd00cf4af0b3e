# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
How fast engines are, and whether they say the same, on real frames.

Those are three of a rendered drive, with unknown objects on the road.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ood_perception.engines.base import Engine, Shape, is_ready
from ood_perception.frames.transfer import normalise
from ood_perception.models.output import InputSpec, SegmentorOutput

FOLDER = Path(__file__).parent / 'probe_frames'
"""JPEGs of 480x360, `ProvingGround(seed=1042, width=480, height=360)`, frames 0, 195 and 225."""

EXACT_TOLERANCE = 0.01  # largest difference over the reference's range, of an exact engine
ROUNDED_TOLERANCE = 0.25  # root mean square difference over its deviation, of one that rounds
BUDGET = 1.0  # seconds that the timing of one engine takes at most, after its first run
RUNS = (3, 10)  # timed runs: at least, whatever they take, and at most


def check_agreement(engine: Engine, reference: Engine, images: Tensor) -> None:
    """
    Raise ValueError where an engine's answers differ from a reference by more than rounding.

    The images, float32 (B, 3, h, w) and normalised, are of real frames: on noise every network is
    uncertain, and rounding shows more than it ever would.
    """
    expected, output = reference(images), engine(images)
    difference = mean_difference if engine.rounded else largest_difference
    gap = difference(output, expected)
    if not gap <= (ROUNDED_TOLERANCE if engine.rounded else EXACT_TOLERANCE):
        raise ValueError(f'its answers differ from {reference.name} by {gap:.2g} of their spread')


def milliseconds(engine: Engine, images: Tensor) -> float:
    """Shortest of some runs: what other processes take away is left out."""
    times: list[float] = []
    begun = time.perf_counter()
    while len(times) < RUNS[0] or (len(times) < RUNS[1] and time.perf_counter() - begun < BUDGET):
        _synchronize(images)
        start = time.perf_counter()
        engine(images)
        _synchronize(images)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def measure_engines(
    names: Sequence[str],
    build: Callable[[str], Engine],
    images: Tensor,
    failures: dict[str, Exception],
    alone: Callable[[], AbstractContextManager[Any]],
) -> dict[str, float]:
    """
    Time every engine that can be built and agrees with the last one: milliseconds by name.

    The last name is the reference, and what it raises is raised; what went wrong with others is
    put into `failures`. `alone` is entered while an engine is timed, for a second at most.
    """
    reference = build(names[-1])
    times = {}
    for name in names:
        try:
            engine = build(name)
            if not is_ready(engine, tuple(images.shape)):
                engine.prepare(tuple(images.shape))
            if engine is not reference:
                check_agreement(engine, reference, images)
            with alone():
                times[name] = milliseconds(engine, images)
        except Exception as error:
            if name == names[-1]:
                raise
            failures[name] = error
    return times


def _synchronize(tensor: Tensor) -> None:
    if tensor.device.type == 'cuda':
        torch.cuda.synchronize(tensor.device)


def largest_difference(output: SegmentorOutput, reference: SegmentorOutput) -> float:
    """Largest absolute difference of outputs over the reference's range; infinite for a misfit."""
    return max(
        _relative((a - b).abs().max(), b.max() - b.min()) for a, b in _pairs(output, reference)
    )


def mean_difference(output: SegmentorOutput, reference: SegmentorOutput) -> float:
    """Root mean square difference of the same outputs, over the reference's deviation."""
    return max(
        _relative((a - b).square().mean().sqrt(), b.std()) for a, b in _pairs(output, reference)
    )


def _pairs(output: SegmentorOutput, reference: SegmentorOutput) -> list[tuple[Tensor, Tensor]]:
    outputs = [(o.logits, o.ood, o.detections) for o in (output, reference)]
    pairs = list(zip(output.features, reference.features, strict=False))
    for got, want in zip(*outputs, strict=True):
        if got is None and want is None:
            continue
        if got is None or want is None or got.shape != want.shape:
            return [(torch.tensor([torch.inf, 0.0]), torch.zeros(2))]
        pairs.append((got, want))
    pairs = pairs or [(torch.zeros(2), torch.zeros(2))]
    return [(got.float(), want.float()) for got, want in pairs]


def _relative(gap: Tensor, scale: Tensor) -> float:
    value = float(gap / scale.clamp_min(1e-6))
    return value if value == value else float('inf')


@functools.cache
def probe_frames() -> tuple[NDArray[np.uint8], ...]:
    """Return the frames, uint8 (360, 480, 3) RGB."""
    images = (cv2.imread(str(path)) for path in sorted(FOLDER.glob('*.jpg')))
    return tuple(np.asarray(image[..., ::-1], np.uint8, order='C') for image in images)


def probe_frame(height: int, width: int) -> NDArray[np.uint8]:
    """Return the first frame, uint8 (height, width, 3) RGB; it shows unknown objects."""
    return np.asarray(cv2.resize(probe_frames()[0], (width, height)), np.uint8)


def prober(spec: InputSpec, device: torch.device) -> Callable[[Shape], Tensor]:
    """Return a function from a shape to images of that shape, as `spec` wants them, of frames."""

    def probe(shape: Shape) -> Tensor:
        frames = probe_frames()
        images = torch.stack(
            [torch.from_numpy(frames[i % len(frames)]).permute(2, 0, 1) for i in range(shape[0])]
        )
        resized = F.interpolate(images.float(), shape[2:], mode='bilinear', antialias=True)
        return normalise(resized.round_().clamp_(0, 255).to(torch.uint8).to(device), spec)

    return probe
