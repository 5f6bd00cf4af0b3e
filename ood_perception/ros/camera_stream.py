# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
One camera as the node sees it: the newest frame that waits, and statistics of all others.

Callbacks of the executor only store a message here; the worker thread takes it. No queue grows: a
frame that a newer one overtakes is dropped and counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ood_perception.frames.decode import stamp_ns
from ood_perception.frames.intensity import Intensity
from ood_perception.frames.stamps import (
    NOWHERE,
    DepthPairing,
    FrameOrder,
    Match,
    Place,
    StampWatch,
)

HISTORY = 300  # measured values that a percentile is taken over
INTERVALS = 9  # newest gaps between images that tell a camera's usual rate
MISSED = 3.0  # a camera is late when so many of its usual intervals have passed


@dataclass(slots=True)
class PendingFrame:
    """A message that was received at `received` (seconds of the steady clock)."""

    message: Any
    received: float
    depth: Match | None = None  # the depth that belongs to it, or None where no depth is read
    place: Place = NOWHERE  # its place among the camera's frames, known while `detect_rate` is set


@dataclass(slots=True)
class Counters:
    """What became of every message of a camera since the node was configured."""

    received: int = 0  # messages that arrived
    processed: int = 0  # frames that went through the pipeline and were published
    dropped: int = 0  # overtaken by a newer frame before the worker was free
    discarded: int = 0  # not even decoded: nobody subscribes, disabled, or no pipeline looks
    bad: int = 0  # messages without a usable image
    failed: int = 0  # frames on which the pipeline failed
    jumps: int = 0  # stamps that went back to a new beginning
    jitters: int = 0  # stamps a little older than one before
    no_depth: int = 0  # frames for which no depth came in time
    propagated: int = 0  # frames that went out with what an earlier one showed, moved to them


def _history() -> deque[float]:
    return deque(maxlen=HISTORY)


@dataclass
class CameraStream:
    """One camera: what it is, the frame that waits, and its statistics."""

    name: str  # of the camera; '' for the only, unnamed one
    max_rate: float = 0.0  # frames per second to process at most, 0 = no limit
    detect_rate: float = 0.0  # frames per second to detect in, the others follow; 0 = in all
    pending: PendingFrame | None = None  # newest frame that nobody took yet
    in_work: PendingFrame | None = None  # that the worker took, until it comes for the next
    last_taken: float = 0.0  # steady time at which the worker last took a frame
    last_received: float = 0.0  # steady time of the last message, or 0
    subscribed_at: float = 0.0  # steady time at which its topic was subscribed, or 0
    owed_since: float = 0.0  # steady time since which frames came and no result went out, or 0
    stamps: StampWatch = field(default_factory=StampWatch)  # what the stamps of the frames say
    counters: Counters = field(default_factory=Counters)  # what became of every message
    stages: dict[str, deque[float]] = field(default_factory=dict)  # last milliseconds of each
    # Steady times of the last messages, frames that were detected in, frames that went out.
    arrivals: deque[float] = field(default_factory=_history)
    finished: deque[float] = field(default_factory=_history)
    published: deque[float] = field(default_factory=_history)
    order: FrameOrder = field(default_factory=FrameOrder)  # in which the frames come
    shown: Place = (-1, 0)  # place of the newest frame that went out
    measured: Place = (-1, 0)  # place of the newest one whose own detection did
    depth: DepthPairing | None = None  # of which frame a depth is; None where none is read
    depth_topic: str = ''  # name of the topic that it comes from
    rectified: bool = False  # whether the topic's images are rectified already
    camera_info: Any = None  # newest sensor_msgs/CameraInfo
    newest: tuple[Any, Any] | None = None  # last message processed and its result
    intensity: Intensity = field(default_factory=Intensity)  # of images of more than 8 bits

    @property
    def label(self) -> str:
        """Name for people."""
        return self.name or 'camera'

    @property
    def rate_limit(self) -> float:
        """Frames per second that the worker takes at most, 0 = no limit."""
        return min([r for r in (self.max_rate, self.detect_rate) if r > 0], default=0.0)

    def usual_interval(self) -> float:
        """Median gap between the last images in seconds, 0 before there were two."""
        times = list(self.arrivals)[-INTERVALS - 1 :]
        return float(np.median(np.diff(times))) if len(times) > 1 else 0.0

    def typical_delay(self) -> float:
        """Median seconds from an image's arrival to its result, 0 before there was one."""
        totals = list(self.stages.get('total', ()))
        return float(np.median(totals)) / 1e3 if totals else 0.0

    def discard(self) -> None:
        """Note a frame that nobody wants."""
        self.counters.discarded += 1
        self.answered()

    def answered(self) -> None:
        """Note that what has come so far got its result, or needs none."""
        self.owed_since = 0.0

    def measure(self, timings: dict[str, float]) -> None:
        """Remember the milliseconds that the stages of one frame took."""
        for stage, value in timings.items():
            self.stages.setdefault(stage, _history()).append(float(value))

    def percentiles(self) -> dict[str, tuple[float, float]]:
        """Median and 95th percentile in milliseconds of every stage."""
        return {
            stage: tuple(np.percentile(list(values), (50, 95)).tolist())
            for stage, values in list(self.stages.items())
        }

    def reset(self) -> None:
        """Start the statistics afresh; what waits and what is subscribed stays."""
        self.counters = Counters()
        self.stamps = StampWatch()
        self.order.begin()
        for kept in (self.arrivals, self.finished, self.published):
            kept.clear()
        if self.depth is not None:
            self.depth.clear()
        self.stages = {}


def mapping(present: Intensity, values: Sequence[float]) -> Intensity:
    """Mapping with a range (low, high), (0, 0) = estimated; the present one where it has that."""
    fixed = (float(values[0]), float(values[1])) if any(values) else None
    return present if fixed == present.fixed else Intensity(fixed)


def rate(times: deque[float], window: float = 5.0) -> float:
    """Events per second over the last `window` seconds."""
    now = time.monotonic()
    recent = [t for t in list(times) if now - t <= window]
    if len(recent) < 2:
        return len(recent) / window
    return (len(recent) - 1) / max(recent[-1] - recent[0], 1e-6)


class Mailbox:
    """
    Where the callbacks leave frames and the one worker thread fetches them.

    The camera that was served longest ago comes first, so a fast camera cannot starve a slow one;
    of each camera only the newest frame waits.
    """

    def __init__(self, streams: list[CameraStream]) -> None:
        self.streams = streams
        # Is shown each frame of a camera with a `detect_rate` as it comes.
        self.follow: Callable[[CameraStream, PendingFrame], None] | None = None
        self._changed = threading.Condition()
        self._woken = False

    def put(self, stream: CameraStream, message: Any) -> None:
        """Store a camera's newest message; called from the executor's thread."""
        now = time.monotonic()
        match = stream.depth.open(stamp_ns(message.header)) if stream.depth is not None else None
        frame = PendingFrame(message, now, match)
        if stream.detect_rate:
            frame.place = stream.order.place(stamp_ns(message.header), time.monotonic_ns())
        with self._changed:
            stream.counters.received += 1
            stream.counters.dropped += stream.pending is not None
            stream.pending = frame
            stream.last_received = now
            stream.owed_since = stream.owed_since or now
            stream.arrivals.append(now)
            self._changed.notify()
        if stream.detect_rate and self.follow is not None:
            self.follow(stream, frame)

    def take(self, limit: int, timeout: float) -> list[tuple[CameraStream, PendingFrame]]:
        """
        Wait for frames and take those of up to `limit` cameras, the longest unserved first.

        The list is empty when :meth:`wake` was called or nothing came in time.
        """
        end = time.monotonic() + timeout
        with self._changed:
            self._nothing_in_work()
            taken: list[tuple[CameraStream, PendingFrame]] = []
            while not self._woken and not (taken := self._take_due(limit)):
                if (now := time.monotonic()) >= end:
                    break
                waiting = [s for s in self.streams if s.pending is not None]
                soonest = min([end, *(_due(s) for s in waiting)])
                self._changed.wait(max(soonest - now, 0.0005))
            self._woken = False
        return taken

    def take_now(self, limit: int) -> list[tuple[CameraStream, PendingFrame]]:
        """Take what :meth:`take` would without waiting; the caller is still at earlier frames."""
        with self._changed:
            return self._take_due(limit)

    def is_next(self, stream: CameraStream, frame: PendingFrame) -> bool:
        """Whether the worker is at this frame, or takes it next."""
        with self._changed:
            if stream.in_work is frame:
                return True
            idle = all(s.in_work is None for s in self.streams)
            return idle and stream.pending is frame and _due(stream) <= time.monotonic()

    def clear(self) -> None:
        """Drop all waiting frames."""
        with self._changed:
            for stream in self.streams:
                stream.pending = None
                stream.order.begin()
                stream.answered()

    def wake(self) -> None:
        """Let the thread that waits in :meth:`take` look at other things at once."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _take_due(self, limit: int) -> list[tuple[CameraStream, PendingFrame]]:
        now = time.monotonic()
        due = [s for s in self.streams if s.pending is not None and _due(s) <= now]
        if due:
            self._nothing_in_work()
        due.sort(key=lambda s: s.last_taken)
        return [(s, self._pop(s, now)) for s in due[:limit]]

    def _nothing_in_work(self) -> None:
        for stream in self.streams:
            stream.in_work = None

    def _pop(self, stream: CameraStream, now: float) -> PendingFrame:
        frame, stream.pending = stream.pending, None
        assert frame is not None
        # Counting from when the frame was due keeps the mean rate exact under jitter.
        due = _due(stream)
        rate = stream.rate_limit
        stream.last_taken = due if rate and now - due < 1.0 / rate else now
        stream.in_work = frame
        return frame


def _due(stream: CameraStream) -> float:
    """Steady time from which the camera's next frame may be taken."""
    return stream.last_taken + 1.0 / stream.rate_limit if stream.rate_limit else 0.0
