# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""An engine that fails is replaced by the next simpler one, once, with one log line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ood_perception.models.output import SegmentorOutput

log = logging.getLogger(__name__)

Engine = Callable[[Tensor], SegmentorOutput]

TOLERANCE = 0.05
"""Largest difference to eager, relative to the range of its outputs, that `fastest` accepts."""


class FallbackEngine:
    """
    Run the first of several engines that works.

    Args:
        makers: (name, function that makes the engine), most wanted first; the last is eager.
        note: told one line when an engine is given up.

    Attributes:
        name: of the engine in use.

    """

    def __init__(
        self, makers: Sequence[tuple[str, Callable[[], Engine]]], note: Callable[[str], None]
    ) -> None:
        self._makers = list(makers)
        self._note = note
        self.name = ''
        self._engine: Engine | None = None
        self._next()

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """Run, falling back as often as there is a simpler engine left."""
        while True:
            try:
                assert self._engine is not None
                return self._engine(images)
            except torch.OutOfMemoryError:
                raise  # a smaller batch helps here, another engine does not
            except Exception as error:
                if not self._makers:
                    raise
                self._give_up(error)
                self._next()

    def _next(self) -> None:
        while self._makers:
            self.name, make = self._makers.pop(0)
            try:
                self._engine = make()
                return
            except Exception as error:
                if not self._makers:
                    raise
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        self._engine = None
        message = f'engine {self.name} failed ({reason}); using {self._makers[0][0]} instead'
        log.warning(message)
        self._note(message)


class FastestEngine:
    """
    Choose, at the first call, the fastest of several engines that agrees with eager.

    An engine with a `reference` of its own is compared with that.

    Args:
        makers: (name, function that makes the engine); the last is eager, the reference.
        note: told why an engine was not taken.

    Attributes:
        name: of the engine in use, '' before the first call.
        why: measured milliseconds of every candidate, one line.

    """

    def __init__(
        self, makers: Sequence[tuple[str, Callable[[], Engine]]], note: Callable[[str], None]
    ) -> None:
        self._makers = list(makers)
        self._note = note
        self.name = self.why = ''
        self._engine: Engine | None = None

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """Run; the first call measures the candidates on these images and takes the fastest."""
        if self._engine is None:
            self._choose(images)
        assert self._engine is not None
        return self._engine(images)

    def _choose(self, images: Tensor) -> None:
        # noise as input: on zeros every engine agrees
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(images.shape, generator=generator).to(images)
        reference: SegmentorOutput | None = None
        times: dict[str, float] = {}
        engines: dict[str, Engine] = {}
        for name, make in reversed(self._makers):
            try:
                engine = make()
                output = engine(probe)
                # what int8 loses was measured on real frames; on noise it must round as simulated
                own = getattr(engine, 'reference', None)
                expected = own(probe) if own is not None else reference
                if expected is not None and (gap := difference(output, expected)) > TOLERANCE:
                    other = 'its simulation' if own is not None else self._makers[-1][0]
                    raise ValueError(f'differs from {other} by {gap:.2g}')
                reference = reference or output
                times[name], engines[name] = _milliseconds(engine, probe), engine
            except Exception as error:
                if reference is None:
                    raise
                self._note(f'engine {name} is not used: {str(error).strip() or type(error)}')
        self.name = min(times, key=lambda name: times[name])
        self._engine = engines[self.name]
        measured = ', '.join(f'{name} {t:.1f} ms' for name, t in times.items())
        self.why = f'engine {self.name} chosen at {tuple(images.shape)}: {measured}'
        log.info(self.why)


def difference(output: SegmentorOutput, reference: SegmentorOutput) -> float:
    """Largest absolute difference of logits and UEM outputs, over the reference's range."""
    gaps = [0.0]
    for a, b in ((output.logits, reference.logits), (output.ood, reference.ood)):
        if b is not None:
            if a is None or a.shape != b.shape:
                return float('inf')
            span = (b.float().max() - b.float().min()).clamp_min(1e-6)
            gap = float(((a.float() - b.float()).abs().max() / span).item())
            gaps.append(gap if gap == gap else float('inf'))
    return max(gaps)


def _milliseconds(engine: Engine, images: Tensor, runs: int = 3) -> float:
    times = []
    for _ in range(runs):
        _synchronize(images)
        start = time.perf_counter()
        engine(images)
        _synchronize(images)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def _synchronize(tensor: Tensor) -> None:
    if tensor.device.type == 'cuda':
        torch.cuda.synchronize(tensor.device)
