# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
One thread where others take the cores, all threads where they are free.

The threads of a network wait for each other after every operation. Where another process takes a
part of one core, all of them wait for the one that shares it, and a network on all cores becomes
slower than one on a single core (`benchmarks/competitor.py`). So the time of each call is watched,
for the network in OpenVINO and for what torch computes around it, each by itself.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)

CALLS = 5  # calls over which a time is taken, as their median
PROBE = 3  # calls in which the other choice is tried
SLOWER = 1.3  # times the fastest median from which the cores count as shared
BETTER = 0.9  # share of the present time that the other choice has to stay below
FIRST_WAIT, LAST_WAIT = 4.0, 30.0  # seconds until the other choice is tried again, doubled in vain
SUDDEN = 0.5  # seconds after a decision from which a much slower call is reason to try again


class ThreadChoice:
    """Decides before each call of `what` (for the log) whether it runs on one thread or on all."""

    def __init__(self, what: str = 'network', clock: Callable[[], float] = time.monotonic) -> None:
        self.single = False  # whether calls run on one thread at present
        self._what = what
        self._clock = clock
        self._times: dict[bool, deque[float]] = {s: deque(maxlen=CALLS) for s in (False, True)}
        self._fastest = float('inf')
        self._left = 0
        self._wait = FIRST_WAIT
        self._try_at = self._decided = 0.0
        self._level = float('inf')

    def next(self) -> bool:
        """Whether the coming call should run on one thread."""
        if not self._left and self._doubtful():
            self._left = PROBE
            self._times[not self.single].clear()
        return self.single != (self._left > 0)

    def took(self, single: bool, seconds: float) -> None:
        """Note the time of a call that ran as `next` said."""
        times = self._times[single]
        times.append(seconds)
        if single == self.single:
            if not single and len(times) == CALLS:
                self._fastest = min(self._fastest, statistics.median(times))
            return
        self._left -= 1
        if self._left > 0:
            return
        other, own = statistics.median(times), statistics.median(self._times[self.single])
        if other < BETTER * own:
            self.single, self._wait = single, FIRST_WAIT
            how = 'one thread' if single else 'all threads'
            log.info('%s on %s now: %.0f ms for %.0f ms', self._what, how, 1e3 * other, 1e3 * own)
        else:
            self._wait = min(2 * self._wait, LAST_WAIT)
        self._decided = self._clock()
        self._try_at = self._decided + self._wait
        self._level = min(other, own)

    def _doubtful(self) -> bool:
        """Whether the present choice may not be the better one, and it is time to see."""
        times, now = self._times[self.single], self._clock()
        if len(times) < CALLS:
            return False
        median = statistics.median(times)
        if now < self._try_at:
            return now >= self._decided + SUDDEN and median > SLOWER * self._level
        return self.single or median > SLOWER * self._fastest


class CrowdedRequest:
    """Two inference requests of OpenVINO, on all threads and on one: the one that suits runs."""

    def __init__(self, everywhere: Any, single: Any) -> None:
        self.choice = ThreadChoice()
        self._requests = {False: everywhere, True: single}

    def infer(self, *arguments: Any, **options: Any) -> Any:
        """Run the network; see openvino.InferRequest.infer."""
        single = self.choice.next()
        start = time.perf_counter()
        found = self._requests[single].infer(*arguments, **options)
        self.choice.took(single, time.perf_counter() - start)
        return found


class TorchThreads:
    """
    While it is entered, torch computes on one thread if others take the cores of the CPU.

    With `lanes` callers in several threads enter it at once, and each has its share of the cores.
    """

    def __init__(self, device: torch.device, lanes: int = 1) -> None:
        self._all = torch.get_num_threads()
        self.share = max(1, self._all // lanes)
        self._choice = ThreadChoice('score and masks')
        self._chooses = device.type == 'cpu' and lanes == 1 < self._all
        self._single = False

    def __enter__(self) -> None:
        if self._chooses:
            self._single = self._choice.next()
        if self._chooses or self.share < self._all:
            torch.set_num_threads(1 if self._single else self.share)

    def __exit__(self, *error: object) -> None:
        if self._single or self.share < self._all:
            torch.set_num_threads(self._all)

    def took(self, seconds: float) -> None:
        """Note the time of a part of the frame that is the same work in every frame."""
        if self._chooses:
            self._choice.took(self._single, seconds)
