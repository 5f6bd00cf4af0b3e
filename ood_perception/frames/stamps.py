# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What the stamps of a camera say: steady, jittering, begun again, or two clocks on one topic."""

from __future__ import annotations

JUMP = 500_000_000
"""Nanoseconds; a step back by less is jitter or a reordered message, not a new beginning."""

CALM = 1000  # frames without a step back after which two clocks are taken to be one again

STEADY, ABSENT, JITTER, RESTART, MIXED = 'steady', 'absent', 'jitter', 'restart', 'mixed'


class StampWatch:
    """
    Tell a bag that begins again from messages out of order and from two publishers on one topic.

    Two publishers whose clocks differ look like a restart, after which the old time goes on. One
    restart is believed; while the old time is seen to go on, the next ones are not.

    Attributes:
        newest: latest stamp in ns of the present timeline; 0 = none yet.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._before = self._begun = 0
        self._mixed = 0

    def look(self, stamp: int) -> tuple[str, int]:
        """
        Judge the next frame's stamp.

        Args:
            stamp: in ns; 0 = the driver sets none.

        Returns:
            'steady', 'absent' (0), 'jitter' (a little back), 'restart' (everything that lives
            through time should be forgotten) or 'mixed' (two clocks), and the step back in ns.
        """
        if stamp == 0:
            return ABSENT, 0
        step, last = stamp - self.newest, self.newest
        if not last or step >= 0:
            # One leap to beyond where the old time ended: somebody else has gone on with it.
            leap = max(JUMP, (self._before - self._begun) // 2)
            if self._before and step > leap and stamp > self._before:
                self._mixed = CALM
            if stamp > self._before:
                self._before = 0
            self._mixed = max(self._mixed - 1, 0)
            self.newest = stamp
            return STEADY, 0
        if -step < JUMP:
            return JITTER, -step
        self._before, self._begun = last, stamp
        self.newest = stamp
        if self._mixed:
            self._mixed = CALM
            return MIXED, -step
        return RESTART, -step


Place = tuple[int, int]
"""Epoch and nanoseconds; compares as the frames of one camera follow each other."""

NOWHERE: Place = (0, 0)  # place of a frame whose order was not looked at


class FrameOrder:
    """
    Order of a camera's frames, across bags that begin again.

    An epoch is a time without a new beginning; in each, stamps tell what comes after what. Frames
    without a stamp are told apart by when they came.

    Attributes:
        epoch: number of the present one.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._watch = StampWatch()
        self._absent = False

    def begin(self) -> None:
        """Begin another epoch: nothing of before says anything about what comes now."""
        self.epoch += 1

    def place(self, stamp: int, now: int) -> Place:
        """
        Place of the frame that arrives next.

        Args:
            stamp: in ns; 0 = the driver sets none.
            now: steady time in ns.
        """
        absent = stamp == 0
        if absent != self._absent or self._watch.look(stamp)[0] == RESTART:
            self._absent = absent
            self.begin()
        return self.epoch, now if absent else stamp
