# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What the stamps of a camera say: of its frames' order, and which depth belongs to an image.

The pairing is that of message_filters' ApproximateTime, which would hold the image back until its
depth is there: here the image is processed at once and only what needs metres waits.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import Any

from ood_perception.frames.decode import stamp_ns

JUMP = 500_000_000  # ns; a step back by less is jitter or a reordered message
KEPT = 8  # depth messages that are kept for images which come later
SAME_TIMELINE = 2_000_000_000  # ns; a depth that is further ahead is of before a bag began again
CALM = 1000  # frames without a step back after which two clocks are taken to be one again

STEADY, ABSENT, JITTER, RESTART, MIXED = 'steady', 'absent', 'jitter', 'restart', 'mixed'


class StampWatch:
    """
    Tell a bag that begins again from messages out of order and from two publishers on one topic.

    Two publishers whose clocks differ look like a restart, after which the old time goes on. One
    restart is believed; while the old time is seen to go on, the next ones are not.
    """

    def __init__(self) -> None:
        self.newest = 0  # latest stamp in ns of the present timeline; 0 = none yet
        self._before = self._begun = 0
        self._mixed = 0

    def look(self, stamp: int) -> tuple[str, int]:
        """
        Judge the next frame's stamp in ns, 0 = the driver sets none; and the step back in ns.

        'steady', 'absent' (0), 'jitter' (a little back), 'restart' (everything that lives through
        time should be forgotten) or 'mixed' (two clocks).
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


Place = tuple[int, int]  # epoch and ns; compares as a camera's frames follow each other
NOWHERE: Place = (0, 0)  # place of a frame whose order was not looked at


class FrameOrder:
    """
    Order of a camera's frames, across bags that begin again.

    An epoch is a time without a new beginning; in each, stamps tell what comes after what. Frames
    without a stamp are told apart by when they came.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._watch = StampWatch()
        self._absent = False

    def begin(self) -> None:
        """Begin another epoch: nothing of before says anything about what comes now."""
        self.epoch += 1

    def place(self, stamp: int, now: int) -> Place:
        """Place of the next frame by its stamp in ns, 0 = none, and by the steady time in ns."""
        absent = stamp == 0
        if absent != self._absent or self._watch.look(stamp)[0] == RESTART:
            self._absent = absent
            self.begin()
        return self.epoch, now if absent else stamp


class Match:
    """An image that waits for its depth."""

    def __init__(self, stamp: int) -> None:
        self.stamp = stamp  # of the image in ns
        self.message: Any = None  # depth message of the nearest stamp so far, or None
        self.gap: int | None = None  # difference of the two stamps in ns
        self.settled = False  # no better one can come: equal stamps, or depth is past the image

    def within(self, slop: float) -> bool:
        """Whether there is a message whose stamp is at most `slop` seconds away."""
        return self.gap is not None and self.gap <= round(slop * 1e9)

    def offer(self, message: Any, stamp: int) -> None:
        """Take a depth message if it is nearer; of two as near, the later one."""
        gap = abs(stamp - self.stamp)
        if self.gap is None or gap <= self.gap:
            self.message, self.gap = message, gap
        self.settled |= gap == 0 or 0 <= stamp - self.stamp <= SAME_TIMELINE


class DepthPairing:
    """
    Depth messages of one camera and the images that wait for them.

    Images are opened and depth is put from any thread. A match that nobody holds any more, because
    its image was dropped, is forgotten by itself.
    """

    def __init__(self) -> None:
        self.newest = 0
        self._recent: deque[tuple[int, Any]] = deque(maxlen=KEPT)
        self._open: weakref.WeakSet[Match] = weakref.WeakSet()
        self._lock = threading.Lock()

    def open(self, stamp: int) -> Match:
        """Begin to look for the depth of an image of this stamp (ns)."""
        match = Match(stamp)
        with self._lock:
            for depth_stamp, message in self._recent:
                match.offer(message, depth_stamp)
            if not match.settled:
                self._open.add(match)
        return match

    def put(self, message: Any) -> bool:
        """Store a depth message; True when an image has waited for just this one."""
        stamp, settled = stamp_ns(message.header), False
        with self._lock:
            self.newest = stamp
            self._recent.append((stamp, message))
            for match in list(self._open):
                match.offer(message, stamp)
                if match.settled:
                    self._open.discard(match)
                    settled = True
        return settled

    def clear(self) -> None:
        """Forget the depth messages; what waits goes on waiting."""
        with self._lock:
            self._recent.clear()
