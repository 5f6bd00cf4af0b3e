# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Frames between two detections: the newest one moved to them, in a thread of its own.

With the parameter `detect_rate` the worker detects in some frames only. Every other frame goes out
as it comes, with its own header and with the objects where optical flow says they are by now. Once
such a frame is out, the detection of an earlier one gives only what the next frames start from
(and what is never moved: score, class mask, points), so no topic goes back in time.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import rclpy

from ood_perception.frames.decode import BadImage, Rgb, decode
from ood_perception.frames.intensity import Intensity
from ood_perception.frames.stamps import NOWHERE, Place
from ood_perception.masks.propagation import Propagator
from ood_perception.result import Result
from ood_perception.ros.camera_stream import MISSED, CameraStream, PendingFrame, mapping
from ood_perception.ros.health import MOMENT, describe

LOOK_AGAIN = 0.01  # seconds after which frames that wait for their depth are looked at again

Found = tuple[PendingFrame, Result, frozenset[str]]


@dataclass
class _Track:
    """One camera's newest detection, and the frames that it is to be moved to."""

    stream: CameraStream
    propagator: Propagator = field(default_factory=Propagator)
    frame: PendingFrame | None = None  # newest frame that nobody looked at yet
    found: Found | None = None  # newest detection that nobody looked at yet
    held: PendingFrame | None = None  # frame that is left to the worker until the next one comes
    place: Place = NOWHERE  # of the frame of the detection, NOWHERE before there was one
    size: tuple[int, int] = (0, 0)  # (H, W) of that frame
    has: frozenset[str] = frozenset()  # fields of its result
    due: float = 0.0  # steady time from which the next frame may go out (max_rate)
    intensity: Intensity = field(default_factory=Intensity)  # of images of more than 8 bits


class Follower:
    """Publish every frame of the cameras with a `detect_rate`."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor  # the FrameProcessor that the frames are published with
        self._tracks: dict[str, _Track] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._stop = threading.Event()
        self._tracks = {s.name: _Track(s) for s in self._processor.mailbox.streams}
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name='ood follower', daemon=True
        )
        self._thread.start()

    def stop(self) -> threading.Thread | None:
        """Tell the thread to end and return it, so that it can be waited for."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        thread, self._thread = self._thread, None
        return thread

    def put(self, stream: CameraStream, frame: PendingFrame) -> None:
        """Show the next frame of a camera; called from the executor's thread."""
        track = self._tracks.get(stream.name)
        if track is not None:
            with self._changed:
                track.frame = frame
                self._changed.notify()

    def found(
        self, stream: CameraStream, frame: PendingFrame, result: Result, has: set[str]
    ) -> None:
        """Take what was found in a frame whose place is known; from the worker's thread."""
        track = self._tracks.get(stream.name)
        if track is not None:
            with self._changed:
                track.found = frame, result, frozenset(has)
                self._changed.notify()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for track, frame, found in self._take(stop):
                try:
                    self._work(track, frame, found)
                except Exception as error:
                    if stop.is_set() or not rclpy.ok():
                        return
                    self._error(track, 'propagation', f'frame not propagated: {describe(error)}')
            processor = self._processor
            if processor.publisher.waits and not stop.is_set():
                with processor.publishing:
                    processor.publisher.flush(processor.settings)

    def _take(
        self, stop: threading.Event
    ) -> list[tuple[_Track, PendingFrame | None, Found | None]]:
        """Wait for frames and detections; the newest of each camera."""
        with self._changed:
            tracks = list(self._tracks.values())
            if not stop.is_set() and not any(t.frame or t.found for t in tracks):
                waits = self._processor.publisher.waits and any(t.place[1] for t in tracks)
                self._changed.wait(LOOK_AGAIN if waits else 0.5)
            taken = [(t, t.frame, t.found) for t in tracks if t.frame or t.found]
            for track, *_ in taken:
                track.frame = track.found = None
        return taken

    def _work(self, track: _Track, frame: PendingFrame | None, found: Found | None) -> None:
        if found is not None:
            self._learn(track, *found)
        if frame is None:
            return
        waiting, track.held = track.held, None
        if waiting is not None:
            self._show(track, waiting)
        if self._left_to_worker(track.stream, frame):
            track.held = frame
        else:
            self._show(track, frame)

    def _left_to_worker(self, stream: CameraStream, frame: PendingFrame) -> bool:
        """Whether the frame's own detection is likely there before the next frame."""
        in_time = 0 < stream.typical_delay() < stream.usual_interval()
        return in_time and self._processor.mailbox.is_next(stream, frame)

    def _learn(
        self, track: _Track, frame: PendingFrame, result: Result, has: frozenset[str]
    ) -> None:
        """Start from this detection from now on, unless a later one is known."""
        if frame.place < track.place:
            return
        image = self._decode(track, frame)
        if image is None:
            return
        if frame.place[0] != track.place[0]:
            track.propagator.reset()
        track.propagator.saw(frame.place[1], image)
        track.propagator.found(frame.place[1], result)
        track.place, track.has = frame.place, has
        track.size = image.shape[0], image.shape[1]

    def _show(self, track: _Track, frame: PendingFrame) -> None:
        """Publish a frame with what the newest detection says of it, if that says anything."""
        stream, processor = track.stream, self._processor
        started, settings = time.monotonic(), processor.settings
        age = (frame.place[1] - track.place[1]) / 1e9
        # Older evidence than that says nothing; the watchdog tells that results are missing.
        limit = max(settings.stale_after, MISSED / stream.rate_limit if stream.rate_limit else 0)
        wants = processor.outputs[stream.name].wants_to_follow()
        if (
            not processor.enabled
            or not wants
            or not wants <= track.has
            or frame.place <= stream.shown
            or frame.place[0] != track.place[0]
            or not 0 < age <= limit
            or started < track.due
        ):
            return
        image = self._decode(track, frame)
        if image is None or image.shape[:2] != track.size:
            return
        track.propagator.saw(frame.place[1], image)
        moved = track.propagator.at(frame.place[1])
        if moved is None:
            return
        with processor.publishing:
            processor.publisher.publish(stream, frame, image, moved, settings, age)
        if stream.max_rate:
            # Counting from when the frame was due keeps the mean rate exact under jitter.
            gap = 1.0 / stream.max_rate
            track.due = gap + (track.due if started - track.due < gap else started)
        now = time.monotonic()
        stream.counters.propagated += 1
        stream.measure(
            {'propagate': (now - started) * 1e3, 'propagated': (now - frame.received) * 1e3}
        )

    def _decode(self, track: _Track, frame: PendingFrame) -> Rgb | None:
        settings = self._processor.settings
        track.intensity = mapping(track.intensity, settings.intensity_range)
        limit = round(settings.max_megapixels * 1e6)
        try:
            return decode(frame.message, limit, intensity=track.intensity)
        except BadImage as error:
            # The worker counts those that it takes; nobody else sees the others.
            self._error(track, 'image', f'bad image: {error}')
            return None

    def _error(self, track: _Track, key: str, text: str) -> None:
        self._processor.health.error(key, text, camera=track.stream.name, lasts=MOMENT)
