# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""False alarms as a driver counts them: objects that never were one, and how many a minute."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.evaluation.pixel_metrics import InputError


class Alarms:
    """
    Count predicted ids that touch nothing unknown in any frame of their stream.

    In a frame an object is false when no pixel of it is labelled unknown and less than half of it
    is to be ignored. With tracking an id is one object, so that one that stays is one alarm.
    """

    def __init__(self) -> None:
        self._true: set[tuple[str, int]] = set()
        self._false: set[tuple[str, int]] = set()
        self._spans: dict[str, tuple[int, int]] = {}

    def update(
        self, stamp_ns: int, instances: NDArray[Any], anomaly: NDArray[np.uint8], stream: str = ''
    ) -> None:
        """
        Add a frame.

        Args:
            instances: (H, W) predicted ids, 0 = none.
            anomaly: uint8 (H, W), 0 known, 1 unknown, 255 ignore.
            stream: name of the sequence; ids of two are never the same object.

        Raises:
            InputError: the sizes differ.
        """
        if instances.shape != anomaly.shape:
            raise InputError(f'instances are {instances.shape}, labels {anomaly.shape}')
        first, last = self._spans.get(stream, (stamp_ns, stamp_ns))
        self._spans[stream] = (min(first, stamp_ns), max(last, stamp_ns))
        ids = instances.astype(np.int64).ravel()
        label = anomaly.ravel()
        total = np.bincount(ids)
        unknown = np.bincount(ids[label == 1], minlength=len(total))
        ignored = np.bincount(ids[label == 255], minlength=len(total))
        for number in np.flatnonzero(total)[int(total[0] > 0) :].tolist():
            false = not unknown[number] and 2 * ignored[number] < total[number]
            (self._false if false else self._true).add((stream, number))

    def merge(self, other: Alarms) -> None:
        """Add what another has counted in other streams."""
        self._true |= other._true
        self._false |= other._false
        self._spans |= other._spans

    def compute(self) -> dict[str, float]:
        """Figures ``false_alarms`` (objects) and ``alarms_per_minute``; nan without time."""
        count = len(self._false - self._true)
        minutes = sum(last - first for first, last in self._spans.values()) / 60e9
        return {
            'false_alarms': count,
            'alarms_per_minute': count / minutes if minutes else float('nan'),
        }
