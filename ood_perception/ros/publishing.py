# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Publishing a frame: its maps at once, its objects as soon as their depth is there.

Heatmap, score and instances never wait. Detections, points and overlay show metres where depth is
read, and aligned depth usually arrives a little after its image: they are held back until it is
there, at most for `depth_slop` or `DEPTH_WAIT`, and then go out without metres.

With `detect_rate`, frames go out with what was found in an earlier one and moved to them. A
detection that such frames have overtaken gives what is measured only: score, classes and points.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ood_perception.frames import depth
from ood_perception.frames.colour import RawFrame
from ood_perception.frames.decode import BadImage, Rgb, decode
from ood_perception.frames.geometry import BadCameraInfo, Camera, size_note
from ood_perception.frames.stamps import KEPT, NOWHERE, Match
from ood_perception.result import Result
from ood_perception.ros.alarms import Alarms
from ood_perception.ros.camera_stream import CameraStream, PendingFrame
from ood_perception.ros.detections import point_cloud, select
from ood_perception.ros.outputs import CameraOutputs
from ood_perception.ros.settings import Settings

DEPTH_WAIT = 0.1
"""Seconds after an image for which its depth is waited for, also where `depth_slop` is shorter."""

OTHER_CLOCK = 10_000_000_000
"""Nanoseconds between image and depth from which their clocks must be different ones."""

Warn = Callable[[CameraStream, str, str, str], None]
"""warn(stream, key, text, remedy): a warning of that kind stands; an empty text takes it back."""


@dataclass(slots=True)
class _Held:
    """A frame whose objects have not been published yet."""

    stream: CameraStream
    frame: PendingFrame
    image: Rgb | RawFrame
    result: Result
    shown: bool = True
    measured: bool = True


class FramePublisher:
    """
    Publish results in the order of their frames.

    Args:
        warn: is told what stands in the way of metres, and when it is over.
        fail: fail(stream, key, error) is told of objects that could not be published.
    """

    def __init__(
        self,
        outputs: Mapping[str, CameraOutputs],
        warn: Warn,
        fail: Callable[[CameraStream, str, Exception], None],
    ) -> None:
        self._outputs, self._warn, self._fail = outputs, warn, fail
        self._held: list[_Held] = []
        self.alarms = Alarms()

    @property
    def waits(self) -> bool:
        """Whether frames are held back; then :meth:`flush` must be called soon."""
        return bool(self._held)

    def publish(
        self,
        stream: CameraStream,
        frame: PendingFrame,
        image: Rgb | RawFrame,
        result: Result,
        settings: Settings,
        age: float = 0.0,
    ) -> None:
        """
        Send the maps of a frame, and everything else that has waited long enough.

        Args:
            result: of the pipeline, on the host.
            age: seconds since the frame in which the result was found, 0 = it is this one.
        """
        message, size = frame.message, image.shape[:2]
        measured, shown = _in_order(stream, frame, age)
        if measured:
            stream.newest = (message, result)
        result = select(result, 0.0, settings.min_area, settings.ignore_zones)
        if measured and result.ids is not None and result.confidences is not None:
            self.alarms.look(stream.name, frame.received, result.ids, result.confidences)
        result = select(result, settings.detection_threshold, 0)
        info = stream.camera_info
        outputs = self._outputs[stream.name]
        if measured:
            outputs.state.look(message.header, frame.received, result, settings)
        outputs.publish_maps(message.header, size, result, settings, info, shown, measured)
        # Drivers without a calibration send an empty one, which matters only where metres do.
        judged = info is not None and (info.width > 0 or settings.depth != 'none')
        text, remedy = size_note(info, *size) if judged else ('', '')
        self._warn(stream, 'camera_info', text, remedy)
        self._held.append(_Held(stream, frame, image, result, shown, measured))
        self.flush(settings)

    def flush(self, settings: Settings) -> None:
        """Send the objects of frames whose depth has come, or for which it is too late."""
        now, waiting = time.monotonic(), self._held
        wait = max(settings.depth_slop, DEPTH_WAIT)
        self._held = []
        for held in waiting:
            match, outputs = held.frame.depth, self._outputs[held.stream.name]
            if not (held.measured and outputs.points_wanted) and not (
                held.shown and outputs.rows_wanted
            ):
                match = None  # nobody asks for metres
            others = sum(other.stream is held.stream for other in self._held)
            in_time = now < held.frame.received + wait and others < KEPT
            if match is not None and not match.settled and in_time:
                self._held.append(held)
                continue
            try:
                self._publish_objects(held, match, settings)
            except Exception as error:
                self._fail(held.stream, 'publishing', error)

    def _publish_objects(self, held: _Held, match: Match | None, settings: Settings) -> None:
        message, image, outputs = held.frame.message, held.image, self._outputs[held.stream.name]
        places: dict[int, depth.Place] = {}
        points = None
        cloud = None if match is None else self._cloud(held, match, settings)
        if cloud is not None:
            ids = held.result.ids
            places = depth.places(cloud, () if ids is None else ids)
            if held.measured and outputs.points_wanted:
                points = point_cloud(message.header, cloud)
        if not held.shown:
            outputs.publish_points(points)
            return
        if isinstance(image, RawFrame) and outputs.overlay.wanted:
            image = decode(message, image.height * image.width)
        outputs.publish_objects(message.header, image, held.result, settings, places, points)

    def _cloud(self, held: _Held, match: Match, settings: Settings) -> Any:
        """Points of the frame, or None without depth or calibration for it."""
        stream, result, size = held.stream, held.result, held.image.shape[:2]
        if not match.within(settings.depth_slop):
            stream.counters.no_depth += 1
            self._warn(stream, 'depth', *why_no_depth(match, stream, settings.depth_slop))
            return None
        s = settings
        choice = depth.Choice(s.points_threshold, s.points_stride, s.min_range, s.max_range)
        try:
            if settings.depth == 'cloud':
                xyz = depth.cloud_xyz(match.message)
                depth.check_size(xyz.shape[:2], size)
                points = depth.from_cloud(xyz, result.heatmap, result.instances, choice)
            else:
                if stream.camera_info is None:
                    raise BadImage('no camera_info yet, which depth needs')
                metres = depth.depth_metres(match.message)
                depth.check_size(metres.shape, size)
                info, rectified = stream.camera_info, stream.rectified
                camera = Camera.from_info(info, size[0], size[1], rectified)
                points = depth.from_depth(metres, camera, result.heatmap, result.instances, choice)
        except (BadImage, BadCameraInfo) as error:
            stream.counters.no_depth += 1
            self._warn(stream, 'depth', f'no points: {error}', getattr(error, 'remedy', ''))
            return None
        self._warn(stream, 'depth', '', '')
        return points


def _in_order(stream: CameraStream, frame: PendingFrame, age: float) -> tuple[bool, bool]:
    """Whether what was measured in the frame, and what can be moved to it, may still go out."""
    measured, shown = age == 0, True
    if frame.place != NOWHERE:
        measured, shown = measured and frame.place > stream.measured, frame.place > stream.shown
        stream.measured = frame.place if measured else stream.measured
        stream.shown = frame.place if shown else stream.shown
    if shown:
        stream.published.append(time.monotonic())
        if stream.detect_rate:
            stream.measure({'evidence_age': age * 1e3})
    return measured, shown


def why_no_depth(match: Match, stream: CameraStream, slop: float) -> tuple[str, str]:
    """What keeps an image and its depth apart, and what to do about it."""
    if match.gap is None:
        return 'no depth has come yet', f'ros2 topic info --verbose {stream.depth_topic}'
    text = f'the nearest depth is {match.gap / 1e9:.3f} s away from the image'
    newest = stream.depth.newest if stream.depth is not None else 0
    if match.gap > OTHER_CLOCK:
        return text, 'let one clock stamp both, image and depth'
    if match.stamp - newest > 1_000_000_000:
        return text, f'{stream.depth_topic} has fallen silent: look at its driver'
    text += f'; depth_slop is {slop:g} s'
    return text, 'synchronise them in the driver or raise depth_slop'
