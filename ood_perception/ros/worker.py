# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The one worker thread: newest frames in, results out.

It decodes, calls the pipeline and publishes; the executor's thread stays free to receive. Whatever
a frame or the pipeline gets wrong ends here as a line in the log and the diagnostics, and the next
frame is processed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import rclpy

from ood_perception.frames.colour import RawFrame
from ood_perception.frames.decode import BadImage, Rgb, decode, raw_frame, stamp_ns
from ood_perception.result import Result
from ood_perception.ros.camera_stream import CameraStream, Frame, Mailbox
from ood_perception.ros.outputs import CameraOutputs
from ood_perception.ros.publishing import FramePublisher
from ood_perception.ros.settings import Settings

Log = Callable[[str, str], None]

HELD_BACK = 0.01
"""Seconds after which frames that wait for their depth are looked at again."""


class Worker:
    """
    Process the frames of a mailbox until it is stopped.

    Attributes:
        settings: the node's parameters, replaced when one changes.
        pipeline: what processes frames, or None while there is none.
        lock: held while frames are processed; whoever else touches the pipeline takes it too.
        enabled: False discards frames.
        learning: whether the pipeline's memory of normal learns from the frames.
        failures: consecutive calls on which the pipeline failed.

    """

    def __init__(
        self,
        mailbox: Mailbox,
        outputs: dict[str, CameraOutputs],
        settings: Settings,
        log: Log,
    ) -> None:
        """
        Prepare the thread without starting it.

        Args:
            mailbox: source of the frames.
            outputs: topics of each camera by its name.
            settings: the node's parameters.
            log: log(level, text), throttled by the caller; levels 'info', 'warn', 'error'.

        """
        self.mailbox = mailbox
        self.outputs = outputs
        self.settings = settings
        self.pipeline: Any = None
        self.lock = threading.RLock()
        self.enabled = True
        self.learning = False
        self.failures = 0
        self.publisher = FramePublisher(outputs, self._warn, self._unpublished)
        self.on_failures: Callable[[Exception], None] = lambda error: None
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name='ood worker', daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """Stop after the frame in work; tells whether the thread ended within `timeout` s."""
        self._stop.set()
        self.mailbox.close()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            timeout = HELD_BACK if self.publisher.waits else 0.5
            waiting = self.mailbox.take(max(self.settings.max_batch, 1), timeout)
            try:
                with self.lock:
                    self.publisher.flush(self.settings)
                    self.process(waiting)
            except Exception as error:
                if not rclpy.ok():
                    return
                # Nothing may end this thread; a fault here is a fault of the node's own.
                self._log('error', f'frame lost: {type(error).__name__}: {error}')

    def process(self, waiting: list[tuple[CameraStream, Frame]]) -> None:
        """Decode, compute and publish one batch. The caller holds the lock."""
        batch: list[tuple[CameraStream, Frame, Rgb | RawFrame, float]] = []
        wants: set[str] = set()
        for stream, frame in waiting:
            wanted = self.outputs[stream.name].wants() | ({'score'} if self.learning else set())
            if not (wanted and self.enabled and self.pipeline is not None):
                stream.counters.unwanted += 1
                continue
            started = time.perf_counter()
            image = self._decode(stream, frame.message)
            if image is not None:
                self._check_stamp(stream, frame.message.header)
                batch.append((stream, frame, image, (time.perf_counter() - started) * 1e3))
                wants |= wanted
        if not batch:
            return
        results = self._infer([b[2] for b in batch], [b[0] for b in batch], wants)
        for (stream, frame, image, decoding), result in zip(batch, results, strict=True):
            if result is None:
                continue
            started = time.perf_counter()
            try:
                self.publisher.publish(stream, frame, image, result, self.settings)
            except Exception as error:
                if not rclpy.ok():  # a signal ended the context under our hands
                    return
                self._unpublished(stream, error)
                continue
            now = time.monotonic()
            stream.counters.processed += 1
            stream.finished.append(now)
            stream.measure(
                {
                    'decode': decoding,
                    **{'pipeline' if k == 'total' else k: v for k, v in result.timings.items()},
                    'publish': (time.perf_counter() - started) * 1e3,
                    'total': (now - frame.received) * 1e3,
                }
            )

    def _decode(self, stream: CameraStream, message: Any) -> Rgb | RawFrame | None:
        limit = round(self.settings.max_megapixels * 1e6)
        try:
            # A GPU converts the camera's own bytes, which are fewer than RGB's.
            raw = raw_frame(message, limit) if self.pipeline.device.type == 'cuda' else None
            if raw is not None:
                return raw
            return decode(message, limit, lambda text: self._complain(stream, 'warn', text))
        except BadImage as error:
            text = str(error)
        except Exception as error:
            # A decoder that meets what nobody thought of; the frame is lost, the node is not.
            text = f'{type(error).__name__}: {error}'
        stream.counters.bad += 1
        self._complain(stream, 'error', f'bad image: {text}')
        return None

    def _check_stamp(self, stream: CameraStream, header: Any) -> None:
        """Forget what lives through time where a bag begins again, and only there."""
        kind, back = stream.stamps.look(stamp_ns(header))
        seconds = f'{back / 1e9:.3f} s'
        if kind == 'absent':
            self._complain(stream, 'warn', 'images carry no stamp (0); outputs cannot be joined')
        elif kind == 'jitter':
            stream.counters.jitters += 1
            self._complain(stream, 'info', f'stamp {seconds} older than the one before; kept')
        elif kind == 'restart':
            stream.counters.jumps += 1
            self._complain(stream, 'warn', f'stamp went back by {seconds}; tracks start afresh')
            self.pipeline.reset(stream.name)
            if stream.depth is not None:
                stream.depth.clear()
        elif kind == 'mixed':
            stream.counters.jitters += 1
            text = f'stamps of two clocks, {seconds} apart, alternate; tracks go on'
            self._complain(stream, 'warn', f'{text}; leave one publisher on the image topic')

    def _infer(
        self, images: list[Rgb | RawFrame], streams: list[CameraStream], wants: set[str]
    ) -> list[Result | None]:
        """One call for all; when it fails, each frame alone, so one camera harms only itself."""
        try:
            results = self.pipeline(images, streams=[s.name for s in streams], wants=wants)
            self.failures = 0
            return list(results)
        except Exception as error:
            if len(images) > 1:
                text = f'batch of {len(images)} frames failed, trying one by one: {error}'
                self._log('warn', text)
                singles = zip(images, streams, strict=True)
                return [r for i, s in singles for r in self._infer([i], [s], wants)]
            streams[0].counters.failed += 1
            self._complain(streams[0], 'error', f'pipeline: {type(error).__name__}: {error}')
            self.failures += 1
            self.on_failures(error)
            return [None]

    def _warn(self, stream: CameraStream, key: str, text: str, remedy: str) -> None:
        """Raise a lasting warning of a camera, said when it begins; '' takes it back."""
        if text and key not in stream.warnings:
            self._complain(stream, 'warn', f'{text} -> {remedy}' if remedy else text)
        elif not text and key in stream.warnings:
            self._complain(stream, 'info', f'over: {stream.warnings[key]}')
        if text:
            stream.warnings[key] = text
        else:
            stream.warnings.pop(key, None)

    def _unpublished(self, stream: CameraStream, error: Exception) -> None:
        stream.counters.failed += 1
        self._complain(stream, 'error', f'publishing: {type(error).__name__}: {error}')

    def _complain(self, stream: CameraStream, level: str, text: str) -> None:
        if level == 'error':
            stream.fail(text)
        with contextlib.suppress(Exception):
            self._log(level, f'{stream.label}: {text}')
