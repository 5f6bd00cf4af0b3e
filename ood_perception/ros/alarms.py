# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The node's alarm budget: measures normal operation, sets the threshold, watches the rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ood_perception.alarm_budget import BLOCK, Peaks, Verdict, exceeds, load, threshold_for
from ood_perception.ros.settings import Settings

HOUR = round(3600 / BLOCK)
"""Blocks over which the live rate is told."""

HOW = '~/calibrate: with true, then normal operation, then with false'


class Alarms:
    """What one worker knows of alarms."""

    def __init__(self) -> None:
        self.measuring: Peaks | None = None  # of the normal operation that is being measured
        self.verdict: Verdict | None = None  # of the budget; None without one or a measurement
        self.problem = ''  # why there is no verdict although there is a budget
        self._live = Peaks()
        self._known: list[float] = []
        self._why = 'normal operation was not measured'

    def look(
        self, camera: str, seconds: float, ids: Iterable[Any], confidences: Iterable[Any]
    ) -> None:
        """Take the objects that were found in a frame itself, those of low confidence, too."""
        for peaks in (self._live, self.measuring):
            if peaks is not None:
                peaks.look(camera, seconds, ids, confidences)

    def read(self, file: str, identity: str) -> None:
        """Read an earlier measurement; one that cannot be used becomes :attr:`problem`."""
        try:
            self._known = load(Path(file).expanduser(), identity)
        except (OSError, ValueError) as error:
            self._known, self._why = [], f'alarms_file: {error}'

    def stop(self, file: str, identity: str) -> str:
        """
        End measuring, keep what was measured and tell what it is.

        Raises:
            ValueError: less than a block was seen; what was known before stays.
            OSError: the file cannot be written.
        """
        measured, self.measuring = self.measuring, None
        if measured is None or not measured.finished():
            raise ValueError(f'less than {BLOCK:g} s of results were seen while measuring')
        self._known, self._live = measured.finished(), Peaks()
        if not file:
            return 'kept in memory only, as alarms_file is empty'
        path = Path(file).expanduser()
        measured.save(path, identity)
        return f'saved to {path}'

    def forget(self) -> None:
        """Drop the measurement: what is found has changed."""
        self.measuring, self._known = None, []
        self._why = 'something else was learnt since normal operation was measured'

    def applied(self, settings: Settings) -> Settings:
        """Settings with the threshold that the budget leads to."""
        self.verdict, self.problem = None, ''
        if not settings.alarms_per_hour:
            return settings
        if not self._known:
            self.problem = f'alarms_per_hour is not in use: {self._why}'
            return settings
        least = settings.detection_threshold
        self.verdict = threshold_for(self._known, settings.alarms_per_hour, least)
        return dataclasses.replace(settings, detection_threshold=self.verdict.threshold)

    def rate(self, settings: Settings) -> tuple[int, float, bool]:
        """Alarms of the last hour, hours watched of it, and whether they break the budget."""
        recent = self._live.values[-HOUR:]
        alarms = sum(value >= settings.detection_threshold for value in recent)
        hours = len(recent) * BLOCK / 3600
        return alarms, hours, exceeds(alarms, hours, settings.alarms_per_hour)
