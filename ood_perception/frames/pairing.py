# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Which depth belongs to an image: the nearest stamp, whichever of the two comes first.

The idea of message_filters' ApproximateTime, written here because that package is in no wheel, and
because it would hold the image back until its depth is there: here the image is processed at once
and only what needs metres waits.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import Any

from ood_perception.frames.decode import stamp_ns

KEPT = 8  # depth messages that are kept for images which come later

SAME_TIMELINE = 2_000_000_000
"""Nanoseconds; a depth that is further ahead stems from before a bag began again."""


class Match:
    """
    An image that waits for its depth.

    Attributes:
        stamp: of the image in ns.
        message: depth message of the nearest stamp so far, or None.
        gap: difference of the two stamps in ns, None without a message.
        settled: whether no better one can come: the stamps are equal, or depth is past the image.
    """

    def __init__(self, stamp: int) -> None:
        self.stamp = stamp
        self.message: Any = None
        self.gap: int | None = None
        self.settled = False

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

    Attributes:
        newest: stamp in ns of the last depth message, 0 before there is one.
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
