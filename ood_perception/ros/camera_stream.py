# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
One camera as the node sees it: the newest frame that waits, and the books about all others.

Callbacks of the executor only store a message here; the worker thread takes it. No queue grows: a
frame that a newer one overtakes is dropped and counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ood_perception.frames.decode import stamp_ns
from ood_perception.frames.intensity import Intensity

HISTORY = 300
"""Measured values that a percentile is taken over."""

DEPTHS_KEPT = 8
"""Depth messages that wait for an image of their stamp."""


@dataclass(slots=True)
class Frame:
    """A message that was received at `received` (seconds of the steady clock)."""

    message: Any
    received: float


@dataclass(slots=True)
class Counters:
    """
    What became of every message of a camera since the node was configured.

    Attributes:
        received: messages that arrived.
        processed: frames that went through the pipeline and were published.
        dropped: overtaken by a newer frame before the worker was free.
        unwanted: discarded undecoded because nobody subscribes to any output.
        bad: messages without a usable image.
        failed: frames on which the pipeline failed.
        jumps: stamps that went backwards.

    """

    received: int = 0
    processed: int = 0
    dropped: int = 0
    unwanted: int = 0
    bad: int = 0
    failed: int = 0
    jumps: int = 0


@dataclass
class CameraStream:
    """
    One camera: what it is, the frame that waits, and its books.

    Attributes:
        name: of the camera; '' for the only, unnamed one.
        max_rate: frames per second to process at most, 0 = no limit.
        pending: newest frame that nobody took yet.
        last_taken: steady time at which the worker last took a frame.
        last_received: steady time of the last message, or 0.
        last_stamp: stamp in ns of the last message that was taken.
        counters: what became of every message.
        stages: last measured milliseconds per stage.
        arrivals: steady times of the last messages.
        finished: steady times of the last published frames.
        depths: newest depth images or clouds by arrival.
        camera_info: newest sensor_msgs/CameraInfo.
        last_error: last problem and the wall time it happened at.
        trouble: what is wrong now (QoS, type of the topic); cleared when it is gone.
        newest: last message that was processed and its result, for a snapshot.
        intensity: mapping of its images of more than 8 bits.

    """

    name: str
    max_rate: float = 0.0
    pending: Frame | None = None
    last_taken: float = 0.0
    last_received: float = 0.0
    last_stamp: int = 0
    counters: Counters = field(default_factory=Counters)
    stages: dict[str, deque[float]] = field(default_factory=dict)
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    finished: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    depths: deque[Any] = field(default_factory=lambda: deque(maxlen=DEPTHS_KEPT))
    camera_info: Any = None
    last_error: str = ''
    last_error_time: float = 0.0
    trouble: str = ''
    newest: tuple[Any, Any] | None = None
    intensity: Intensity = field(default_factory=Intensity)

    @property
    def label(self) -> str:
        """Name for people."""
        return self.name or 'camera'

    def fail(self, text: str) -> None:
        """Remember a problem for the diagnostics."""
        self.last_error, self.last_error_time = text, time.monotonic()

    def fix_intensity(self, values: Sequence[float]) -> None:
        """Use a range of values given as (low, high), or with (0, 0) an estimated one."""
        fixed = (float(values[0]), float(values[1])) if any(values) else None
        if fixed != self.intensity.fixed:
            self.intensity = Intensity(fixed)

    def measure(self, timings: dict[str, float]) -> None:
        """Remember the milliseconds that the stages of one frame took."""
        for stage, value in timings.items():
            self.stages.setdefault(stage, deque(maxlen=HISTORY)).append(float(value))

    def percentiles(self) -> dict[str, tuple[float, float]]:
        """Median and 95th percentile in milliseconds of every stage."""
        return {
            stage: tuple(np.percentile(list(values), (50, 95)).tolist())
            for stage, values in list(self.stages.items())
        }

    def forget(self) -> None:
        """Start the books afresh; what waits and what is subscribed stays."""
        self.counters = Counters()
        self.last_stamp = 0
        self.last_error = ''
        for kept in (self.arrivals, self.finished, self.depths):
            kept.clear()
        self.stages = {}

    def depth_near(self, stamp: int, slop_ns: int) -> Any:
        """Depth message whose stamp is nearest to `stamp` (ns) and at most `slop_ns` away."""
        kept = [(abs(stamp_ns(m.header) - stamp), i, m) for i, m in enumerate(list(self.depths))]
        gap, _, message = min(kept, default=(slop_ns + 1, 0, None))
        return message if gap <= slop_ns else None


def rate(times: deque[float], window: float = 5.0) -> float:
    """Events per second over the last `window` seconds."""
    now = time.monotonic()
    recent = [t for t in list(times) if now - t <= window]
    if len(recent) < 2:
        return len(recent) / window
    return (len(recent) - 1) / max(recent[-1] - recent[0], 1e-6) if recent else 0.0


class Mailbox:
    """
    Where the callbacks leave frames and the one worker thread fetches them.

    The camera that was served longest ago comes first, so a fast camera cannot starve a slow one;
    of each camera only the newest frame waits.
    """

    def __init__(self, streams: list[CameraStream]) -> None:
        self.streams = streams
        self._changed = threading.Condition()
        self._closed = False

    def put(self, stream: CameraStream, message: Any) -> None:
        """Store a camera's newest message; called from the executor's thread."""
        now = time.monotonic()
        with self._changed:
            stream.counters.received += 1
            stream.counters.dropped += stream.pending is not None
            stream.pending = Frame(message, now)
            stream.last_received = now
            stream.arrivals.append(now)
            self._changed.notify()

    def take(self, limit: int, timeout: float) -> list[tuple[CameraStream, Frame]]:
        """
        Wait for frames and take those of up to `limit` cameras, the longest unserved first.

        Args:
            limit: cameras to take from at most.
            timeout: seconds to wait; then the list is empty.

        """
        end = time.monotonic() + timeout
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                waiting = [s for s in self.streams if s.pending is not None]
                due = [s for s in waiting if _due(s) <= now]
                if due:
                    due.sort(key=lambda s: s.last_taken)
                    return [(s, self._pop(s, now)) for s in due[:limit]]
                soonest = min([end, *(_due(s) for s in waiting)])
                if now >= end:
                    break
                self._changed.wait(max(soonest - now, 0.0005))
        return []

    def clear(self) -> None:
        """Forget all waiting frames."""
        with self._changed:
            for stream in self.streams:
                stream.pending = None

    def close(self) -> None:
        """Wake the worker for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pop(self, stream: CameraStream, now: float) -> Frame:
        frame, stream.pending = stream.pending, None
        assert frame is not None
        # Counting from when the frame was due keeps the mean rate exact under jitter.
        due = _due(stream)
        stream.last_taken = due if stream.max_rate and now - due < 1.0 / stream.max_rate else now
        return frame


def _due(stream: CameraStream) -> float:
    """Steady time from which the camera's next frame may be taken."""
    return stream.last_taken + 1.0 / stream.max_rate if stream.max_rate > 0 else 0.0
