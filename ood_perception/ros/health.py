# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The health of the node: everything that is wrong now, in one place, and the log's lines.

Whoever meets a problem calls :meth:`Health.warn` or :meth:`Health.error`, whoever sees that it is
over calls :meth:`Health.clear`. The log gets a line of both; the diagnostics show what stands.
`watchdog` adds what shows in silence only: no image, no result, a memory that was never taught.
"""

from __future__ import annotations

import enum
import functools
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ood_perception.diagnosis import OK, cheap_checks

MOMENT = 5.0  # seconds for which a problem of a single frame is shown
REMIND = 300.0  # seconds after which the log is told again of an issue that stands
LOG_PERIOD = 5.0  # seconds for which a log line of the same kind is not repeated
KINDS_KEPT = 256

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


def describe(error: BaseException) -> str:
    """An exception in one line: its type, unless the text says it all, and its text."""
    text = ' '.join(str(error).split()) or 'no further text'
    return text if isinstance(error, ValueError) else f'{type(error).__name__}: {text}'


class Reporter:
    """Log lines, at most one of its kind (its text without digits) every `LOG_PERIOD` seconds."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._said: dict[str, tuple[float, int]] = {}
        self._checked = False

    def __call__(self, level: str, text: str) -> None:
        """Log `text` with `level` ('info', 'warn', 'error'), or count it as said already."""
        kind = ''.join(c for c in text if not c.isdigit())[:60]
        now = time.monotonic()
        last, hidden = self._said.get(kind, (-LOG_PERIOD, 0))
        if now - last < LOG_PERIOD:
            self._said[kind] = (last, hidden + 1)
            return
        if len(self._said) > KINDS_KEPT:
            self._said.clear()
        self._said[kind] = (now, 0)
        text += f' ({hidden} more like it)' if hidden else ''
        # One call site a level: rclpy ties a severity to the place a line is logged from.
        if level == 'error':
            self._logger.error(text)
        elif level == 'warn':
            self._logger.warn(text)
        else:
            self._logger.info(text)

    def check_installation(self, profile: str) -> None:
        """Say once what the quick checks of `ood doctor` find, with the remedy."""
        if self._checked:
            return
        self._checked = True
        for finding in cheap_checks(profile):
            remedy = f' -> {finding.remedy}' if finding.remedy else ''
            text = f'{finding.name}: {finding.text}{remedy}'
            if finding.level != OK:
                self._logger.warn(text)
            elif remedy and finding.name == 'messages':
                self._logger.info(text)


class LoggingBridge(logging.Handler):
    """Hands the lines of the package's `logging` (engine choice, weights) to the node's log."""

    LOGGER = 'ood_perception'

    def __init__(self, report: Reporter) -> None:
        super().__init__(logging.INFO)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Report one record; a line that cannot be made is dropped, as `logging` does."""
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f' ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})'
        except Exception:
            self.handleError(record)
            return
        level = 'info'
        if record.levelno >= logging.WARNING:
            level = 'error' if record.levelno >= logging.ERROR else 'warn'
        self._report(level, text)

    def install(self) -> None:
        """Start to listen."""
        logger = logging.getLogger(self.LOGGER)
        logger.addHandler(self)
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)

    def remove(self) -> None:
        """Stop to listen."""
        logging.getLogger(self.LOGGER).removeHandler(self)
