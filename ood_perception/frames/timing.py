# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Milliseconds per stage, without stalling the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StageTimer:
    """
    Collect the time of named stages: CUDA events on a GPU (no synchronisation), a clock elsewhere.

    A stage entered twice adds up. Call :meth:`read` only after the device has been synchronised
    (the download does that).
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == 'cuda'
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._times: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body as `name`."""
        if self._cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((name, begin, end))
        else:
            start = time.perf_counter()
            yield
            self._add(name, 1e3 * (time.perf_counter() - start))

    def read(self) -> dict[str, float]:
        """Milliseconds per stage, and 'total' by the host's clock since the timer was made."""
        for name, begin, end in self._events:
            self._add(name, begin.elapsed_time(end))
        self._events.clear()
        return {**self._times, 'total': 1e3 * (time.perf_counter() - self._start)}

    def _add(self, name: str, milliseconds: float) -> None:
        self._times[name] = self._times.get(name, 0.0) + milliseconds
