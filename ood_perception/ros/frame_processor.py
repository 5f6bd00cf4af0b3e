# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What happens to frames that were taken: decode, compute, publish, count what became of them.

Whatever a frame or the pipeline gets wrong ends here as a line in the log and the diagnostics, and
the next frame is processed.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import rclpy

from ood_perception.frames import depth
from ood_perception.frames.colour import RawFrame
from ood_perception.frames.decode import BadImage, Rgb, decode, raw_frame, stamp_ns
from ood_perception.frames.stamps import NOWHERE
from ood_perception.result import FramesFailed, Result
from ood_perception.ros import loading
from ood_perception.ros.camera_stream import MISSED, CameraStream, Mailbox, PendingFrame, mapping
from ood_perception.ros.fallback import Fallback
from ood_perception.ros.follower import Follower
from ood_perception.ros.health import MOMENT, Health, describe
from ood_perception.ros.loading import Size
from ood_perception.ros.outputs import CameraOutputs
from ood_perception.ros.publishing import FramePublisher
from ood_perception.ros.settings import Settings

Compute = Callable[[], list[Result]]


@dataclass(slots=True)
class DecodedFrame:
    """A frame of a batch; `decoding` is how many milliseconds that took."""

    stream: CameraStream
    pending: PendingFrame
    image: Rgb | RawFrame
    decoding: float


@dataclass(slots=True)
class Batch:
    """Frames that go through the pipeline together, and what somebody wants of them."""

    pipeline: Any
    frames: list[DecodedFrame] = field(default_factory=list)
    wants: set[str] = field(default_factory=set)
    blind: bool = False  # whether the pipeline could not look: it learns, or has to be taught


class FrameProcessor:
    """Process batches of frames with a pipeline."""

    def __init__(
        self,
        mailbox: Mailbox,
        outputs: dict[str, CameraOutputs],
        settings: Settings,
        health: Health,
        fallback: Fallback,
    ) -> None:
        self.mailbox = mailbox
        self.outputs = outputs
        self.settings = settings  # the node's parameters, replaced when one changes
        self.health = health
        self.fallback = fallback
        self.pipeline: Any = None  # what processes frames, or None while there is none
        self.enabled = True  # False discards frames
        self.learning = False  # whether the pipeline's memory of normal learns from the frames
        self.doing = ''  # what a user waits for ('loading ...', 'warming up ...'), or ''
        self.busy_since = 0.0  # steady time since which one call is in work, or 0
        # Seconds that a frame may take before any was timed: as long as warming up took.
        self.patience = 0.0
        self.sizes: dict[str, Size] = {}  # of each camera's last image, by the camera's name
        self.publishing = threading.Lock()  # held while messages are written and sent
        self.publisher = FramePublisher(outputs, self._standing, self._fail)
        self.follower = Follower(self)
        mailbox.follow = self.follower.put
        self._warm: set[Any] = set()

    def delay_limit(self) -> float:
        """Seconds within which a frame's result must be there, by what was usual so far."""
        usual = max((s.typical_delay() for s in self.mailbox.streams), default=0.0)
        return MISSED * usual or self.patience

    def decode(self, waiting: list[tuple[CameraStream, PendingFrame]]) -> Batch:
        """Decode the frames that somebody wants something of; in any thread, one at a time."""
        batch = Batch(self.pipeline)
        for stream, frame in waiting:
            wanted = self.outputs[stream.name].wants() | ({'score'} if self.learning else set())
            wanted |= {'instances'} if self.publisher.alarms.measuring else set()
            if not (wanted and self.enabled and batch.pipeline is not None):
                stream.discard()
                continue
            started = time.perf_counter()
            image = self._decode(stream, frame.message, batch.pipeline)
            if image is not None:
                spent = (time.perf_counter() - started) * 1e3
                batch.frames.append(DecodedFrame(stream, frame, image, spent))
                batch.wants |= wanted
        return batch

    def compute(self, batch: Batch) -> list[Result | None]:
        """Compute a batch, in the thread of the pipeline; None for a frame without a result."""
        return self.finish(batch, self.begin(batch))

    def begin(self, batch: Batch) -> Compute | None:
        """Begin to compute a batch, in the thread of the pipeline; None where nobody wants it."""
        pipeline, frames = batch.pipeline, batch.frames
        if not self.enabled:  # since it was decoded
            for frame in frames:
                frame.stream.discard()
            return None
        for frame in frames:
            self._check_stamp(frame.stream, frame.pending.message.header, pipeline)
        self._prepare(
            pipeline, {f.stream.name: (f.image.shape[0], f.image.shape[1]) for f in frames}
        )
        return self._call(pipeline, frames, batch.wants)

    def finish(self, batch: Batch, begun: Compute | None) -> list[Result | None]:
        """Results of a batch that was begun; None for a frame without."""
        if begun is None:
            return [None] * len(batch.frames)
        results = self._infer(begun, batch.pipeline, batch.frames, batch.wants)
        batch.blind = self.learning or bool(loading.unlearnt(batch.pipeline))
        return results

    def publish(self, batch: Batch, results: list[Result | None]) -> None:
        """Publish what was computed; in any thread, one at a time."""
        if self.pipeline is not batch.pipeline:
            return  # it was stopped or replaced meanwhile
        for frame, result in zip(batch.frames, results, strict=True):
            if result is None:
                continue
            stream, pending, image = frame.stream, frame.pending, frame.image
            started = time.perf_counter()
            try:
                with self.publishing:
                    # A memory that was not taught says nothing, not that nothing is unknown.
                    if not batch.blind:
                        self.publisher.publish(stream, pending, image, result, self.settings)
                if batch.blind:
                    stream.order.begin()
                elif pending.place != NOWHERE:  # with a `detect_rate`
                    self.follower.found(stream, pending, result, batch.wants)
            except Exception as error:
                if not rclpy.ok():  # a signal ended the context under our hands
                    return
                self._fail(stream, 'publishing', error)
                continue
            now = time.monotonic()
            stream.answered()
            stream.counters.processed += 1
            stream.finished.append(now)
            stream.measure(
                {
                    'decode': frame.decoding,
                    **{'pipeline' if k == 'total' else k: v for k, v in result.timings.items()},
                    'publish': (time.perf_counter() - started) * 1e3,
                    'total': (now - pending.received) * 1e3,
                }
            )

    def _decode(self, stream: CameraStream, message: Any, pipeline: Any) -> Rgb | RawFrame | None:
        limit = round(self.settings.max_megapixels * 1e6)
        try:
            # A GPU converts the camera's own bytes, which are fewer than RGB's.
            raw = raw_frame(message, limit) if pipeline.device.type == 'cuda' else None
            if raw is not None:
                return raw
            stream.intensity = mapping(stream.intensity, self.settings.intensity_range)
            warn = functools.partial(self._warn, stream, 'decoding')
            return decode(message, limit, warn, stream.intensity)
        except BadImage as error:
            text = str(error)
        except Exception as error:
            # A decoder that meets what it was not made for; the frame is lost, the node is not.
            text = describe(error)
        stream.counters.bad += 1
        stream.answered()
        self._error(stream, 'image', f'bad image: {text}')
        return None

    def _check_stamp(self, stream: CameraStream, header: Any, pipeline: Any) -> None:
        """Forget what lives through time where a bag begins again, and only there."""
        kind, back = stream.stamps.look(stamp_ns(header))
        seconds = f'{back / 1e9:.3f} s'
        if kind == 'absent':
            self._warn(stream, 'stamp', 'images carry no stamp (0); outputs cannot be joined')
        elif kind == 'jitter':
            stream.counters.jitters += 1
            text = f'stamp {seconds} older than the one before; kept'
            self.health.report('info', f'{stream.label}: {text}')
        elif kind == 'restart':
            stream.counters.jumps += 1
            self._warn(stream, 'stamp', f'stamp went back by {seconds}; tracks start afresh')
            pipeline.reset(stream.name)
            if stream.depth is not None:
                stream.depth.clear()
        elif kind == 'mixed':
            stream.counters.jitters += 1
            text = f'stamps of two clocks, {seconds} apart, alternate; tracks go on'
            self._warn(stream, 'stamp', text, 'leave one publisher on the image topic')

    def _prepare(self, pipeline: Any, sizes: dict[str, Size]) -> None:
        """
        Warm up for the first image sizes before their first frame.

        Later ones an engine that is `live` prepares in the background by itself.
        """
        self.sizes |= sizes
        live = bool(self._warm) and pipeline.engine.live
        for size in set(sizes.values()):
            key = pipeline.network_size(*size)
            if key in self._warm:
                continue
            if live:
                self._warm.add(key)
                continue
            self.doing = f'warming up for images of {size[1]}x{size[0]}'
            count = min(len(self.mailbox.streams), max(self.settings.max_batch, 1))
            started = time.monotonic()
            try:
                loading.warm_up(pipeline, [size], count, wait=False)
            except Exception as error:
                self.health.report('warn', f'{self.doing}: {describe(error)}')
            finally:
                self._warm.add(key)
                self.doing, self.busy_since = '', time.monotonic()
                self.patience = self.busy_since - started
            runs = f'engine {pipeline.engine.name} on {pipeline.device}'
            self.health.report('info', f'ready for {size[1]}x{size[0]}: {runs}')

    def _call(self, pipeline: Any, frames: list[DecodedFrame], wants: set[str]) -> Compute:
        """One call for all frames, which is under way where several are in flight."""
        images, names = [f.image for f in frames], [f.stream.name for f in frames]
        stamps = [stamp_ns(f.pending.message.header) or None for f in frames]
        memory = loading.memory_of(pipeline)
        judged = memory is not None and memory.needs_depth
        more: dict[str, Any] = {'depths': self._depths(frames)} if judged else {}
        more |= {'wants': wants, 'stamps': stamps}
        if self.settings.frames_in_flight == 1:
            return functools.partial(pipeline, images, names, **more)
        begun: Compute = pipeline.submit(images, names, **more).result
        return begun

    def _infer(
        self, begun: Compute, pipeline: Any, frames: list[DecodedFrame], wants: set[str]
    ) -> list[Result | None]:
        """Wait for a call; None for a frame that failed, so one camera harms only itself."""
        errors: list[Exception | None] = [None] * len(frames)
        results: list[Result | None]
        try:
            results = list(begun())
        except FramesFailed as failure:
            # Tracks, clusters and a memory that learns had these frames: none is tried again.
            results, errors = failure.results, failure.errors
        except Exception as error:
            if len(frames) > 1:  # refused before any frame was looked at
                text = f'batch of {len(frames)} frames failed, trying one by one: {error}'
                self.health.report('warn', text)
                alone = [(self._call(pipeline, [frame], wants), frame) for frame in frames]
                return [r for a, f in alone for r in self._infer(a, pipeline, [f], wants)]
            results, errors = [None], [error]
        for frame, failed in zip(frames, errors, strict=True):
            if failed is not None:
                self._fail(frame.stream, 'pipeline', failed)
        first = next((failed for failed in errors if failed is not None), None)
        if first is None or None in errors:
            self.fallback.succeeded(time.monotonic())
            self.health.clear('pipeline')
        else:
            self.fallback.failed(time.monotonic(), describe(first))
        return results

    def _depths(self, frames: list[DecodedFrame]) -> list[Any]:
        """Metres of the frames whose depth has come; what is wrong with one the publisher says."""
        found: list[Any] = [None] * len(frames)
        for i, frame in enumerate(frames):
            match = frame.pending.depth
            if match is not None and match.within(self.settings.depth_slop):
                with contextlib.suppress(BadImage):
                    metres = depth.metres_ahead(match.message)
                    depth.check_size(metres.shape, frame.image.shape[:2])
                    found[i] = metres
        return found

    def _fail(self, stream: CameraStream, key: str, error: Exception) -> None:
        stream.counters.failed += 1
        self._error(stream, key, f'{key}: {describe(error)}')

    def _standing(self, stream: CameraStream, key: str, text: str, remedy: str) -> None:
        """Raise a warning of a camera that lasts; an empty text takes it back."""
        if text:
            self.health.warn(key, text, remedy, camera=stream.name)
        else:
            self.health.clear(key, stream.name)

    def _error(self, stream: CameraStream, key: str, text: str) -> None:
        with contextlib.suppress(Exception):
            self.health.error(key, text, camera=stream.name, lasts=MOMENT)

    def _warn(self, stream: CameraStream, key: str, text: str, remedy: str = '') -> None:
        with contextlib.suppress(Exception):
            self.health.warn(key, text, remedy, camera=stream.name, lasts=MOMENT)
