# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The node's log lines: throttled, and joined by those of the package's own `logging`."""

from __future__ import annotations

import logging
import time
from typing import Any

from ood_perception.diagnosis import OK, cheap_checks

LOG_PERIOD = 5.0  # seconds for which a log line of the same kind is not repeated

KINDS_KEPT = 256


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
    """
    Hand the lines of the package's `logging` (engine choice, weights, scores) to the node's log.
    """

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
