# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The engine that a pipeline runs: it chooses, falls back and recovers while frames go on."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ood_perception.engines.background import Background
from ood_perception.engines.base import (
    Engine,
    EngineEvent,
    Shape,
    first_line,
    is_out_of_memory,
    is_ready,
    release_memory,
)
from ood_perception.engines.choices import Choices
from ood_perception.engines.faults import Faults
from ood_perception.engines.measure import check_agreement, measure_engines
from ood_perception.in_flight import Places
from ood_perception.models.output import SegmentorOutput

log = logging.getLogger(__name__)

HEAD_START = 2.5  # seconds that a camera's first frames have the processors for themselves
MEMORY_PAUSE = 0.1  # seconds that a single image waits for memory before it is tried again


class AdaptiveEngine:
    """
    Run a network with the fastest engine that works.

    With `measure` the engines are timed on real frames at the first shape that is prepared, and
    the fastest whose answers agree with the last one's is taken; without it the first that works.
    If a camera waits (`live`), the last one, which needs no preparation, runs until that is done.
    An engine that fails runs the same images once more, which is enough for a fault that passes.
    If it fails again, the next simpler engine is loaded first and takes over then. The engine that
    failed is tried in the background, with growing pauses, and comes back once its answers are
    right. When every engine fails on the same images, the images are at fault: the error is raised
    and the engine stays. Threads, images and outputs are as of any :class:`Engine`.

    Args:
        makers: (name, function that builds the engine), most wanted first. The last one is the
            reference for the others and runs every shape without preparation.
        probe: makes normalised images of a shape out of real frames.
        measure: time the engines and take the fastest.
        live: a new shape is served by the last engine until it is prepared in the background.
            Otherwise the first call at a new shape waits.
        choices: where measured choices are kept; None keeps none.
        note: told one line whenever something is decided.
        lanes: frames that may be computed at once, by callers in several threads.
    """

    def __init__(
        self,
        makers: Sequence[tuple[str, Callable[[], Engine]]],
        probe: Callable[[Shape], Tensor],
        *,
        measure: bool = False,
        live: bool = False,
        choices: Choices | None = None,
        note: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        lanes: int = 1,
    ) -> None:
        self.live = live  # may be changed at any time
        self._makers = dict(makers)
        self._order = [name for name, _ in makers]
        self._probe = probe
        self._measure = measure
        self._choices = choices
        self._note = note
        self._measured = ''
        self._engines: dict[str, Engine] = {}
        self._current: Engine | None = None
        self._faults = Faults(self._say, clock)
        self._lock = threading.RLock()
        self._places = Places(lanes)  # a frame takes one, an engine that is timed all
        self._starting = threading.Lock()
        self._background = Background()
        self._closed = False

    # ---- what callers use ------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the engine that runs, '' before one was built."""
        return '' if self._current is None else self._current.name

    @property
    def why(self) -> str:
        """Why this engine runs, one line."""
        wanted = self._order[0]
        if self._measure or self._current is None:
            return self._measured
        if self.name == wanted:
            return 'asked for'
        if self._faults.stands(wanted):
            return f'{wanted} failed'
        return f'needs no preparation; {wanted} is being prepared'

    @property
    def channels_last(self) -> bool:
        """Whether the engine that runs wants the pixels channels-last."""
        return self._current is None or self._current.channels_last

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> SegmentorOutput:
        """
        Run the network on float32 (B, 3, h, w), with a simpler engine where this one fails.

        Raises torch.OutOfMemoryError for want of room for several images, whose caller halves the
        batch, and whatever the engine raised when all of them failed on these images.
        """
        if self._current is None:
            with self._starting:  # of several first frames one builds an engine
                self.prepare([tuple(images.shape)], wait=not self.live)
        engine = self._current
        assert engine is not None
        self._climb_later(tuple(images.shape))
        with self._places.one():
            try:
                return self._run(engine, images)
            except Exception as error:
                if is_out_of_memory(error) and len(images) > 1:
                    raise
                return self._recover(engine, images, error)

    @torch.inference_mode()
    def prepare(self, shapes: Iterable[Shape], wait: bool = True) -> None:
        """
        Choose an engine if there is none yet and make it ready for `shapes` of images, now.

        Without `wait` the simplest runs until the others were measured in the background, or, if
        `live`, until the one that was asked for is ready.
        """
        for shape in dict.fromkeys(shapes):
            if self._current is None:
                self._start(shape, wait)
            engine = self._current
            assert engine is not None
            if not wait:
                continue  # the first frame of this shape has it prepared in the background
            try:
                _prepare(engine, shape)
            except Exception as error:
                self._recover(engine, self._probe(shape), error)

    @property
    def events(self) -> list[EngineEvent]:
        """What an operator should know, oldest first."""
        return self._faults.events

    def faults(self) -> list[EngineEvent]:
        """Events that are not over."""
        return self._faults.lasting()

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait for the background; False when it took longer than `timeout` seconds."""
        return self._background.wait(timeout)

    def close(self) -> None:
        """Drop all engines; a job that is under way in the background ends by itself."""
        with self._lock:
            self._closed = True
            self._background.clear()
            self._engines.clear()
            self._current = None

    # ---- running ---------------------------------------------------------------------------

    def _run(self, engine: Engine, images: Tensor) -> SegmentorOutput:
        shape = tuple(images.shape)
        if is_ready(engine, shape):
            return engine(images)
        if not self.live:
            engine.prepare(shape)
            return engine(images)
        key = f'{engine.name} at {_size(shape)}'
        if self._faults.may_try(key):
            self._background.add(key, lambda: self._prepare_later(key, engine, shape))
        return self._reference()(images)

    def _recover(self, engine: Engine, images: Tensor, error: Exception) -> SegmentorOutput:
        """Run again what failed, with a simpler engine if it has to be."""
        if is_out_of_memory(error):
            release_memory()
            time.sleep(MEMORY_PAUSE)
        try:
            output = self._run(engine, images)
        except Exception as again:
            error = again
        else:
            reason = f'engine {engine.name} failed once ({first_line(error)})'
            self._faults.passed(engine.name, reason)
            return output
        for name in self._order[self._order.index(engine.name) + 1 :]:
            try:
                simpler = self._build(name)
                if self.live and not is_ready(simpler, tuple(images.shape)):
                    continue  # it would keep the camera waiting; the background prepares it
                output = self._run(simpler, images)
            except Exception as failure:
                log.info('engine %s cannot help: %s', name, first_line(failure))
                continue
            with self._lock:
                self._current = simpler
                self._engines.pop(engine.name, None)
                reason = f'engine {engine.name} failed ({first_line(error)}); using {name} instead'
                self._faults.suspend(engine.name, reason, error)
            return output
        raise error

    # ---- choosing --------------------------------------------------------------------------

    def _start(self, shape: Shape, wait: bool) -> None:
        """Build the engine to begin with."""
        if self._measure:
            if wait or len(self._order) == 1:
                self._decide(shape)
                return
            self._current = self._reference()
            self._measured = 'needs no preparation; the others are being measured'
            later = functools.partial(self._decide, shape, HEAD_START)
            self._background.add('choosing an engine', later)
            return
        if self.live and not wait and len(self._order) > 1:
            self._current = self._reference()
            self._climb_later(shape)
            return
        for i, name in enumerate(self._order, 1):
            try:
                engine = self._build(name)
                _prepare(engine, shape)
                engine(self._probe(shape))
                self._current = engine
                return
            except Exception as error:
                self._engines.pop(name, None)
                if i == len(self._order):
                    raise
                failed = f'engine {name} failed ({first_line(error)})'
                self._faults.suspend(name, f'{failed}; using {self._order[i]} instead', error)

    def _decide(self, shape: Shape, pause: float = 0.0) -> None:
        """Take what an earlier start has chosen, or measure; after a pause of so many seconds."""
        time.sleep(pause)
        if self._closed:
            return
        kept = self._choices.read(shape) if self._choices is not None else None
        if kept is None or not self._take_kept(kept, shape):
            self._choose(shape)

    def _choose(self, shape: Shape) -> None:
        """Take the fastest engine whose answers agree with the reference on real frames."""
        failures: dict[str, Exception] = {}
        probe = self._probe(shape)
        alone = self._places.alone
        times = measure_engines(self._order, self._build, probe, failures, alone)
        for name, error in failures.items():
            self._say(f'engine {name} is not used: {first_line(error)}')
        self._take(times, shape, 'measured')
        log.info('engine %s runs: %s', self.name, self.why)
        # what failed for another reason may run the next time
        lasting = all(isinstance(e, (ImportError, ValueError)) for e in failures.values())
        if self._choices is not None and lasting:
            self._choices.write(shape, times)

    def _take_kept(self, kept: Mapping[str, float], shape: Shape) -> bool:
        """Take a choice of an earlier start, if that engine still works and still agrees."""
        reference, name = self._order[-1], min(kept, key=kept.__getitem__, default='')
        if reference not in kept or not set(kept) <= set(self._order):
            return False
        try:
            engine = self._build(name)
            if name != reference:
                _prepare(engine, shape)
                check_agreement(engine, self._reference(), self._probe(shape))
        except Exception as error:
            self._engines.pop(name, None)
            self._say(f'engine {name} of an earlier start is not used: {first_line(error)}')
            return False
        self._take(kept, shape, 'measured at an earlier start')
        return True

    def _take(self, times: Mapping[str, float], shape: Shape, when: str) -> None:
        reference = self._order[-1]
        by_time = sorted(times, key=times.__getitem__)
        fastest = self._build(by_time[0])
        with self._lock:
            if self._closed:
                return
            self._order = [*by_time[: by_time.index(reference)], reference]
            self._current = fastest
            kept = (self._order[0], reference)
            self._engines = {n: e for n, e in self._engines.items() if n in kept}
        self._measured = f'{when} at {_size(shape)}: ' + ', '.join(
            f'{name} {times[name]:.1f} ms' for name in by_time
        )

    # ---- coming back -----------------------------------------------------------------------

    def _climb_later(self, shape: Shape) -> None:
        """Try a better engine than the present one in the background, when it is time."""
        if self.name == self._order[0] or self._background.busy:
            return
        for name in self._order[: self._order.index(self.name)]:
            if self._faults.may_try(name):
                self._background.add(name, functools.partial(self._climb, name, shape))
                return

    def _climb(self, name: str, shape: Shape) -> None:
        known = self._faults.stands(name)
        try:
            self._engines.pop(name, None)
            engine = self._build(name)
            _prepare(engine, shape)
            check_agreement(engine, self._reference(), self._probe(shape))
        except Exception as error:
            failed = f'failed{" again" if known else ""} ({first_line(error)})'
            self._engines.pop(name, None)
            self._faults.suspend(name, f'engine {name} {failed}; using {self.name} instead', error)
            return
        with self._lock:
            if self._closed:
                return
            self._current = engine
            self._faults.absolve(name)
        self._say(f'engine {name} runs {"again" if known else "now"}')

    def _prepare_later(self, key: str, engine: Engine, shape: Shape) -> None:
        try:
            engine.prepare(shape)
        except Exception as error:
            reason = f'engine {key} cannot be prepared ({first_line(error)})'
            self._faults.suspend(key, reason, error)
        else:
            self._faults.absolve(key)

    # ---- parts -----------------------------------------------------------------------------

    def _build(self, name: str) -> Engine:
        if name not in self._engines:
            engine = self._makers[name]()
            engine.name = name
            self._engines[name] = engine
        return self._engines[name]

    def _reference(self) -> Engine:
        return self._build(self._order[-1])

    def _say(self, line: str) -> None:
        log.warning(line)
        self._note(line)


def _prepare(engine: Engine, shape: Shape) -> None:
    if not is_ready(engine, shape):
        engine.prepare(shape)


def _size(shape: Shape) -> str:
    return f'{shape[0]} x {shape[3]}x{shape[2]}'
