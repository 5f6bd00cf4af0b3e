# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The health of the node: everything that is wrong now, in one place.

Whoever meets a problem calls :meth:`Health.warn` or :meth:`Health.error`, whoever sees that it is
over calls :meth:`Health.clear`. The log gets a line of both; the diagnostics show what stands.
`watchdog` adds what shows in silence only: no image, no result, a memory that was never taught.
"""

from __future__ import annotations

import enum
import functools
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

MOMENT = 5.0  # seconds for which a problem of a single frame is shown
REMIND = 300.0  # seconds after which the log is told again of an issue that stands

Report = Callable[[str, str], None]


class Level(enum.IntEnum):
    """Level of a diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True, slots=True)
class Issue:
    """Something that is wrong."""

    level: Level  # WARN (results come, but somebody should look) or ERROR (none, or none to trust)
    text: str  # what is wrong, with the value that was met
    remedy: str = ''  # what to do about it, '' where there is nothing to say
    until: float = math.inf  # steady time in seconds at which it is over by itself

    def __str__(self) -> str:
        return f'{self.text} -> {self.remedy}' if self.remedy else self.text


class Health:
    """
    Present issues of the node and of each camera, by a key that names their kind.

    Safe to use from any thread.

    Args:
        report: report(level, text) logs a line and throttles repetitions; level is 'info', 'warn'
            or 'error'.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._issues: dict[tuple[str | None, str], Issue] = {}
        self._last_error: dict[str | None, str] = {}
        self._told: dict[tuple[str | None, str], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def put(
        self,
        level: Level,
        key: str,
        text: str,
        remedy: str = '',
        camera: str | None = None,
        lasts: float = math.inf,
        quiet: bool = False,
    ) -> None:
        """
        Raise an issue, or renew it.

        Args:
            level: WARN or ERROR.
            key: kind of the issue; one issue of a kind stands at a time.
            camera: name of the camera it belongs to ('' is the only, unnamed one); None: the node.
            lasts: seconds after which it is over unless it is raised again.
            quiet: leave the log alone; the diagnostics show it.
        """
        now = time.monotonic()
        issue = Issue(level, text, remedy, now + lasts)
        kind = ''.join(c for c in text if not c.isdigit())
        with self._lock:
            if level == Level.ERROR:
                self._last_error[camera] = text
            self._issues[camera, key] = issue
            if quiet:
                return
            if math.isinf(lasts):
                before, when = self._told.get((camera, key), ('', -REMIND))
                if before == kind and now - when < REMIND:
                    return
                self._told[camera, key] = (kind, now)
        self.report(level.name.lower(), f'{_prefix(camera)}{issue}')

    warn = functools.partialmethod(put, Level.WARN)
    error = functools.partialmethod(put, Level.ERROR)

    def clear(self, key: str, camera: str | None = None) -> None:
        """Say that an issue is over; nothing happens when there is none of that kind."""
        with self._lock:
            issue = self._issues.pop((camera, key), None)
            told = self._told.pop((camera, key), None)
        if issue is not None and told is not None:
            self.report('info', f'{_prefix(camera)}over: {issue.text}')

    def forget(self, camera: str | None = None, errors: bool = True) -> None:
        """Drop all issues of a camera (None: of the node) without a word, and its last error."""
        with self._lock:
            self._issues = {k: v for k, v in self._issues.items() if k[0] != camera}
            self._told = {k: v for k, v in self._told.items() if k[0] != camera}
            if errors:
                self._last_error.pop(camera, None)

    def issues(self, camera: str | None = None) -> list[Issue]:
        """Present issues of a camera (None: of the node), errors first."""
        now = time.monotonic()
        with self._lock:
            self._issues = {k: v for k, v in self._issues.items() if v.until > now}
            found = [issue for (owner, _), issue in self._issues.items() if owner == camera]
        return sorted(found, key=lambda issue: -issue.level)

    def verdict(self, camera: str | None = None) -> tuple[Level, str]:
        """Worst level of a camera's issues (None: of the node's) and their texts; OK without."""
        found = self.issues(camera)
        if not found:
            return Level.OK, 'running'
        return found[0].level, '; '.join(str(issue) for issue in found)

    def last_error(self, camera: str | None = None) -> str:
        """Text of the newest error, also of one that is over."""
        with self._lock:
            return self._last_error.get(camera, '')


def _prefix(camera: str | None) -> str:
    return '' if camera is None else f'{camera or "camera"}: '
