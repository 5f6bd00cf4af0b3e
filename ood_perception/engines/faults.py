# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What failed, until when it pauses, and what an operator is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ood_perception.engines.base import EngineEvent, first_line, release_memory

T = TypeVar('T')

Note = Callable[[str], None]  # is told one line when something failed

FIRST_RETRY = 1.0  # seconds until what failed is tried again; doubled at each further failure
LONGEST_RETRY = 300.0  # seconds between two trials at most
STABLE = 600.0  # seconds without a failure after which an engine counts as sound again
MAX_EVENTS = 32  # events that are remembered


@dataclass(slots=True)
class _Fault:
    """What failed, how long it pauses, when it is tried again."""

    event: EngineEvent
    pause: float
    retry_at: float


class Faults:
    """Faults of engines, and of single shapes of them; `say` is told a line of whatever is new."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.events: list[EngineEvent] = []  # oldest first, at most `MAX_EVENTS`
        self._say, self._clock = say, clock
        self._known: dict[str, _Fault] = {}

    def lasting(self) -> list[EngineEvent]:
        """Events that are not over."""
        return [e for e in self.events if e.until is None]

    def passed(self, engine: str, reason: str) -> None:
        """Record what failed once and worked when it was done again."""
        self._tell(EngineEvent(engine, reason, until=time.time()))

    def stands(self, key: str) -> bool:
        """Whether something failed before, be it over or not."""
        return key in self._known

    def may_try(self, key: str) -> bool:
        """Whether it is time to try what failed, or it never did."""
        fault = self._known.get(key)
        return fault is None or fault.retry_at <= self._clock()

    def suspend(self, key: str, reason: str, error: Exception) -> None:
        """Record a fault and when what failed is tried again."""
        now, old = self._clock(), self._known.get(key)
        pause = FIRST_RETRY
        if old is not None and now - old.retry_at < STABLE:
            pause = min(2 * old.pause, LONGEST_RETRY)
        lasting = isinstance(error, (ImportError, ValueError))
        remedy = 'choose another engine' if lasting else ''
        if old is not None and old.event.until is None:
            event = old.event
            event.reason, event.remedy = reason, remedy
        else:
            event = EngineEvent(key.split()[0], reason, remedy)
            self._tell(event)
        self._known[key] = _Fault(event, pause, float('inf') if lasting else now + pause)

    def absolve(self, key: str) -> None:
        """Close the event of a fault; its pause is remembered, for the case that it returns."""
        fault = self._known.get(key)
        if fault is not None:
            fault.event.until = time.time()
            fault.retry_at = self._clock()

    def _tell(self, event: EngineEvent) -> None:
        self.events = [*self.events[1 - MAX_EVENTS :], event]
        self._say(str(event))


def attempt(what: str, note: Note, stage: Callable[[], T]) -> T | Exception:
    """Run a stage that changes nothing; once more when it fails; then return its error."""
    try:
        return stage()
    except Exception as error:
        note(f'{what} failed ({first_line(error)}); trying again')
        release_memory()
    try:
        return stage()
    except Exception as error:
        return error
