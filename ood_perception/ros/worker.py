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
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy

from ood_perception.frames.colour import RawFrame
from ood_perception.frames.decode import BadImage, Rgb, decode, decode_raw, raw_frame, stamp_ns
from ood_perception.result import Result
from ood_perception.ros import depth
from ood_perception.ros.camera_stream import CameraStream, Frame, Mailbox
from ood_perception.ros.detections import select
from ood_perception.ros.outputs import CameraOutputs
from ood_perception.ros.settings import Settings

Log = Callable[[str, str], None]


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
            waiting = self.mailbox.take(max(self.settings.max_batch, 1), timeout=0.5)
            try:
                with self.lock:
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
                self._publish(stream, frame.message, image, result)
            except Exception as error:
                if not rclpy.ok():  # a signal ended the context under our hands
                    return
                stream.counters.failed += 1
                self._complain(stream, 'error', f'publishing: {type(error).__name__}: {error}')
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
            stream.fix_intensity(self.settings.intensity_range)
            warn = functools.partial(self._complain, stream, 'warn')
            return decode(message, limit, warn, stream.intensity)
        except BadImage as error:
            text = str(error)
        except Exception as error:
            # A decoder that meets what nobody thought of; the frame is lost, the node is not.
            text = f'{type(error).__name__}: {error}'
        stream.counters.bad += 1
        self._complain(stream, 'error', f'bad image: {text}')
        return None

    def _check_stamp(self, stream: CameraStream, header: Any) -> None:
        stamp = stamp_ns(header)
        if stamp == 0:
            self._complain(stream, 'warn', 'images carry no stamp (0); outputs cannot be joined')
        elif stamp < stream.last_stamp:
            stream.counters.jumps += 1
            gap = (stream.last_stamp - stamp) / 1e9
            self._complain(stream, 'warn', f'stamp went back by {gap:.3f} s; tracks start afresh')
            self.pipeline.reset(stream.name)
            stream.depths.clear()
        stream.last_stamp = stamp

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

    def _publish(
        self, stream: CameraStream, message: Any, image: Rgb | RawFrame, result: Result
    ) -> None:
        outputs, settings, header = self.outputs[stream.name], self.settings, message.header
        stream.newest = (message, result)
        result = select(result, settings.detection_threshold, settings.min_area)
        places: dict[int, depth.Place] = {}
        points = None
        if settings.depth != 'none' and (outputs.points_wanted or outputs.rows_wanted):
            cloud = self._cloud(stream, header, image.shape[:2], result)
            if cloud is not None:
                places = depth.places(cloud, () if result.ids is None else result.ids)
                if outputs.points_wanted:
                    points = depth.point_cloud(header, cloud)
        if isinstance(image, RawFrame) and outputs.overlay.wanted:
            image = decode_raw(message, image.height * image.width)
        outputs.publish(header, image, result, settings, places, points, stream.camera_info)

    def _cloud(
        self, stream: CameraStream, header: Any, size: tuple[int, ...], result: Result
    ) -> Any:
        """Points of the frame, or None without depth or calibration for it."""
        settings = self.settings
        message = stream.depth_near(stamp_ns(header), round(settings.depth_slop * 1e9))
        if message is None:
            text = f'no depth within {settings.depth_slop:g} s of the image'
            self._complain(stream, 'warn', f'{text}; waiting for {len(stream.depths)} messages')
            return None
        stride = settings.points_stride
        try:
            if settings.depth == 'cloud':
                xyz = depth.cloud_xyz(message)
                _same_size(xyz.shape[:2], size)
                xyz = xyz[::stride, ::stride]
            else:
                if stream.camera_info is None:
                    raise BadImage('no camera_info yet, which depth needs')
                metres = depth.depth_metres(message)
                _same_size(metres.shape, size)
                xyz = depth.back_project(metres, stream.camera_info.k, stride)
        except BadImage as error:
            self._complain(stream, 'warn', f'no points: {error}')
            return None
        heatmap, instances = result.heatmap, result.instances
        if heatmap is None:  # only rows are wanted: objects count, single pixels do not
            heatmap = np.zeros(size, np.uint8)
        return depth.points(
            xyz,
            heatmap[::stride, ::stride],
            None if instances is None else instances[::stride, ::stride],
            max(settings.points_threshold, 1 / 255)
            if result.heatmap is None
            else settings.points_threshold,
            settings.min_range,
            settings.max_range,
        )

    def _complain(self, stream: CameraStream, level: str, text: str) -> None:
        if level == 'error':
            stream.fail(text)
        with contextlib.suppress(Exception):
            self._log(level, f'{stream.label}: {text}')


def _same_size(got: tuple[int, ...], size: tuple[int, ...]) -> None:
    if got != size:
        raise BadImage(
            f'depth of {got[1]}x{got[0]} is not registered to the image of {size[1]}x{size[0]}'
        )
