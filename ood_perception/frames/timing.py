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

    A stage entered twice adds up. Call :meth:`read` after the download, which waits for the device
    anyway; it waits itself where nothing was downloaded.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == 'cuda'
        self._device = device
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._times: dict[str, float] = {}
        self._start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body as `name`."""
        if self._cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.current_stream(self._device)
            begin.record(stream)
            yield
            end.record(stream)
            self._events.append((name, begin, end))
        else:
            start = time.perf_counter()
            yield
            self._add(name, 1e3 * (time.perf_counter() - start))

    def read(self) -> dict[str, float]:
        """Milliseconds per stage, and 'total' by the host's clock since the timer was made."""
        for name, begin, end in self._events:
            end.synchronize()
            self._add(name, begin.elapsed_time(end))
        self._events.clear()
        return {**self._times, 'total': 1e3 * (time.perf_counter() - self._start)}

    def _add(self, name: str, milliseconds: float) -> None:
        self._times[name] = self._times.get(name, 0.0) + milliseconds
