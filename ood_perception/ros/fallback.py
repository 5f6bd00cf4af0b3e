# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
When the whole pipeline keeps failing: which one to build instead, and when to try the first again.

Decisions only, without threads or a clock; `worker` carries them out. A fault that passes
(another process takes the GPU's memory for 100 ms) changes nothing. One that lasts leads to a
simpler engine and then to the CPU; from there the wanted pipeline is tried again, at growing
intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

FAILURES = 3  # calls in a row that fail before a fault can count as lasting,
LASTING = 1.0  # and seconds over which they must spread

RETRY = (1.0, 60.0)
"""Shortest and longest pause in seconds after a pipeline that could not be built."""

CLIMB = (30.0, 600.0)
"""Shortest and longest time in seconds on a simpler pipeline before the wanted one is tried."""


@dataclass(frozen=True, slots=True)
class Step:
    """An engine and a device to run on, by the names that the parameters take."""

    engine: str
    device: str

    def __str__(self) -> str:
        return f'engine {self.engine} on {self.device}'


def steps(engine: str, device: str, on_gpu: bool) -> list[Step]:
    """Pipelines to try, the wanted one first, each simpler than the one before."""
    found = [Step(engine, device), Step('eager', device)]
    if on_gpu:
        found.append(Step('eager', 'cpu'))
    return list(dict.fromkeys(found))


class Fallback:
    """Which of several steps to run on; all times are seconds of the caller's steady clock."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps  # the wanted one first
        self.current = 0  # index of the step in use
        self.reason = ''  # of the last change, '' while the wanted step is in use
        self.failures = 0  # calls in a row that have failed
        self._first_failure = self._last_failure = 0.0
        self._refused = 0
        self._retry_at = self._climb_at = self._since = 0.0
        self._retry, self._climb = RETRY[0], CLIMB[0]
        self._climbed = False

    def succeeded(self, now: float) -> None:
        """Note a call that gave results."""
        self.failures = self._refused = 0
        self._retry = RETRY[0]
        if self.current == 0 and now - self._since > CLIMB[1]:
            self._climb = CLIMB[0]

    def failed(self, now: float, reason: str) -> None:
        """Note a call that failed."""
        if not self.failures:
            self._first_failure = now
        self.failures += 1
        self._last_failure = now
        self.reason = reason

    def lost(self, now: float, reason: str) -> None:
        """Note that the pipeline does not come back from a call at all."""
        self.failures, self.reason = max(self.failures, FAILURES), reason
        self._first_failure, self._last_failure = now - LASTING, now

    @property
    def lasting(self) -> bool:
        """Whether the present fault is more than a passing one."""
        spread = self._last_failure - self._first_failure
        return self.failures >= FAILURES and spread >= LASTING

    def due(self, now: float) -> int | None:
        """Index of the step to build now, None when all is well or it is too early."""
        if self.lasting:
            if now < self._retry_at:
                return None
            # past the simplest one: the present one afresh
            step = self.current + 1 + self._refused
            return step if step < len(self.steps) else self.current
        if self.current and not self.failures and now >= self._climb_at:
            return 0
        return None

    def refused(self, step: int, now: float, reason: str) -> float:
        """Note that a step could not be built; returns the seconds until the next attempt."""
        if step == 0 and self.current and not self.lasting:
            self._climb = min(2 * self._climb, CLIMB[1])
            self._climb_at = now + self._climb
            return self._climb
        self.reason = reason
        if self.current < step < len(self.steps) - 1:
            self._refused += 1
            return 0.0
        self._refused = 0
        pause, self._retry = self._retry, min(2 * self._retry, RETRY[1])
        self._retry_at = now + pause
        return pause

    def adopted(self, step: int, now: float) -> float:
        """Note that a step is in use; returns the seconds until the wanted one is tried."""
        if step and not self.current:
            # It has just failed again after a climb: wait longer every time.
            recent = self._climbed and now - self._since < CLIMB[1]
            self._climb = min(2 * self._climb, CLIMB[1]) if recent else CLIMB[0]
        self._climbed = step == 0 and self.current > 0
        self.current, self._since = step, now
        self.failures = self._refused = 0
        self._climb_at = now + self._climb
        if step == 0:
            self.reason = ''
        return self._climb
