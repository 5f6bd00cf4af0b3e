# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Metrics over time: flicker, track switches, false alarms, how long nobody notices an object."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.pixel_metrics import InputError

LEVEL = 128
"""Value 0..255 of the heatmap from which a pixel is taken for unknown."""

CAMERAS = 16
"""Streams that may take turns; of more, the longest unseen one starts anew."""


class TimeMetrics:
    """
    Mergeable metrics over sequences of frames; each sequence is given in order to one object.

    - flicker: share of pixels whose verdict (heatmap >= 128) changes from one frame to the next;
      motion counts too, so it compares runs over the same frames.
    - switches: how often a true object is matched by another predicted id than before.
    - delay: from an object's first frame to the first in which it is matched; objects that are
      never matched are counted, not averaged.
    """

    def __init__(self) -> None:
        self._changed = self._compared = self.switches = 0
        self._last: dict[str, NDArray[np.bool_]] = {}
        # Per stream and true id: first frame and stamp, and the id that matched it last.
        self._seen: dict[tuple[str, int], tuple[int, int]] = {}
        self._owner: dict[tuple[str, int], int] = {}
        self._delays: list[tuple[int, int]] = []
        self._frame: dict[str, int] = {}

    def update(
        self,
        stamp_ns: int,
        heatmap: Any = None,
        truths: Iterable[int] = (),
        pairs: Iterable[tuple[int, int]] = (),
        stream: str = '',
    ) -> None:
        """
        Add the next frame of a stream.

        Args:
            heatmap: uint8 (H, W), or None.
            truths: ids of the true objects in it.
            pairs: matched (predicted id, true id).
        """
        number = self._frame[stream] = self._frame.get(stream, -1) + 1
        if heatmap is not None:
            verdict = np.asarray(heatmap) >= LEVEL
            last = self._last.get(stream)
            if last is not None and last.shape == verdict.shape:
                self._changed += int(np.count_nonzero(verdict != last))
                self._compared += verdict.size
            self._last.pop(stream, None)
            self._last[stream] = verdict
            if len(self._last) > CAMERAS:
                del self._last[next(iter(self._last))]
        for truth in truths:
            self._seen.setdefault((stream, int(truth)), (number, stamp_ns))
        for predicted, truth in pairs:
            key = stream, int(truth)
            first = self._seen.setdefault(key, (number, stamp_ns))
            if key not in self._owner:
                self._delays.append((number - first[0], stamp_ns - first[1]))
            elif self._owner[key] != predicted:
                self.switches += 1
            self._owner[key] = int(predicted)

    def merge(self, other: TimeMetrics) -> TimeMetrics:
        """Add the streams of another; returns self. Raises ValueError: one stream in both."""
        if both := set(self._frame) & set(other._frame):
            raise ValueError(f'stream: {sorted(both)[:3]} was given to both, out of order')
        self._changed += other._changed
        self._compared += other._compared
        self.switches += other.switches
        self._seen |= other._seen
        self._owner |= other._owner
        self._delays += other._delays
        self._frame |= other._frame
        return self

    def compute(self) -> dict[str, float]:
        """
        Figures so far.

        Returns:
            ``flicker`` (0..1), ``track_switches`` (count), ``switches_per_object``,
            ``delay_frames`` and ``delay_s`` (means over found objects), ``delay_s_max``,
            ``objects``, ``never_found``. Undefined figures are nan.
        """
        nan = float('nan')
        found, objects = len(self._delays), len(self._seen)
        frames = [f for f, _ in self._delays]
        seconds = [ns / 1e9 for _, ns in self._delays]
        return {
            'flicker': self._changed / self._compared if self._compared else nan,
            'track_switches': self.switches,
            'switches_per_object': self.switches / found if found else nan,
            'delay_frames': sum(frames) / found if found else nan,
            'delay_s': math.fsum(seconds) / found if found else nan,
            'delay_s_max': max(seconds, default=nan),
            'objects': objects,
            'never_found': objects - found,
        }


class Alarms:
    """
    Count false alarms as a driver does: predicted ids that touch nothing unknown in any frame.

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
        false = (unknown == 0) & (2 * ignored < total)
        for number in np.flatnonzero(total[1:]) + 1:
            (self._false if false[number] else self._true).add((stream, int(number)))

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
