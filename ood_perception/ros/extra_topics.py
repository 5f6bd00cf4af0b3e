# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The objects in the forms of other tools: 3D boxes, outlines for Foxglove, facts on the pipeline.

Each topic exists where its message package can be imported; `ood doctor` and the log's first lines
name those that are absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from std_msgs.msg import Header

from ood_perception.detections import CLASS_ID, Detection
from ood_perception.drawing import OUTLINE
from ood_perception.result import Result
from ood_perception.ros import qos
from ood_perception.ros.image_topic import heard

TOPICS = {
    'detections_3d': (
        'vision_msgs/msg/Detection3DArray',
        'the objects with a place: median and extent of their points in metres, id and score as '
        'in detections (parameter depth, where vision_msgs is installed)',
    ),
    'annotations': (
        'foxglove_msgs/msg/ImageAnnotations',
        'outline, id and score of each object, which Foxglove and Lichtblick draw over the camera '
        'image (where foxglove_msgs is installed)',
    ),
    'vision_info': (
        'vision_msgs/msg/VisionInfo',
        'latched: the profile, and where its class names are (where vision_msgs is installed)',
    ),
}
"""Topic: type and meaning."""


def foxglove_msgs() -> Any:
    """Module foxglove_msgs.msg, or None where it is not installed."""
    try:
        import foxglove_msgs.msg
    except ImportError:
        return None
    return foxglove_msgs.msg


class ExtraTopics:
    """
    Such topics of one camera.

    Args:
        create: create(type, name, qos=None) makes a lifecycle publisher.
        vision: module vision_msgs.msg, or None where it is not installed.
        foxglove: module foxglove_msgs.msg, or None.
        metres: whether depth is read.
    """

    def __init__(
        self, create: Callable[..., Any], vision: Any, foxglove: Any, metres: bool
    ) -> None:
        self._vision, self._foxglove, self._version = vision, foxglove, 0
        self.detections_3d: Any = None
        self.annotations: Any = None
        self.vision_info: Any = None
        if metres and hasattr(vision, 'Detection3DArray'):
            self.detections_3d = create(vision.Detection3DArray, 'detections_3d')
        if foxglove is not None:
            self.annotations = create(foxglove.ImageAnnotations, 'annotations')
        if hasattr(vision, 'VisionInfo'):
            self.vision_info = create(vision.VisionInfo, 'vision_info', qos.profile('latched'))

    @property
    def wanted(self) -> bool:
        """Whether somebody subscribes to a form of the objects."""
        return heard(self.detections_3d) or heard(self.annotations)

    def announce(self, profile: str, labels: str) -> None:
        """Say what runs, and on which topic its class names are; the node must be active."""
        if self.vision_info is not None:
            self._version += 1
            info = self._vision.VisionInfo(
                header=Header(),
                method=profile,
                database_location=labels,
                database_version=self._version,
            )
            self.vision_info.publish(info)

    def publish(self, header: Any, result: Result, found: Sequence[Detection]) -> None:
        """Send a frame's objects to whoever listens, none at all as an empty message."""
        if heard(self.detections_3d):
            self.detections_3d.publish(detections_3d(self._vision, header, found))
        if heard(self.annotations):
            self.annotations.publish(image_annotations(self._foxglove, header, result, found))


def detections_3d(messages: Any, header: Any, found: Sequence[Detection]) -> Any:
    """Objects that have a place as a vision_msgs/Detection3DArray, in the frame of the header."""
    array = messages.Detection3DArray(header=header)
    for item in found:
        if item.place is None:
            continue
        detection = messages.Detection3D(header=header, id=str(item.id))
        hypothesis = messages.ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id = CLASS_ID
        hypothesis.hypothesis.score = item.confidence
        for point in (hypothesis.pose.pose.position, detection.bbox.center.position):
            point.x, point.y, point.z = item.place.position
        size = detection.bbox.size
        size.x, size.y, size.z = item.place.size
        detection.results = [hypothesis]
        array.detections.append(detection)
    return array


def image_annotations(
    messages: Any, header: Any, result: Result, found: Sequence[Detection]
) -> Any:
    """Outline, id and score of each object as a foxglove_msgs/ImageAnnotations."""
    colour = {name: value / 255 for name, value in zip('rgb', OUTLINE, strict=True)}
    drawn = messages.ImageAnnotations()
    for item in found:
        for outline in _outlines(result.instances, item.id):
            points = messages.PointsAnnotation(
                timestamp=header.stamp, type=messages.PointsAnnotation.LINE_LOOP, thickness=2.0
            )
            # Their origin is the corner of the first pixel, ours its centre.
            points.points = [messages.Point2(x=x + 0.5, y=y + 0.5) for x, y in outline.tolist()]
            points.outline_color = messages.Color(**colour, a=1.0)
            drawn.points.append(points)
        text = messages.TextAnnotation(timestamp=header.stamp, text=item.label)
        text.position = messages.Point2(x=item.box[0], y=item.box[1])
        text.font_size = 12.0
        text.text_color = messages.Color(**colour, a=1.0)
        drawn.texts.append(text)
    return drawn


def _outlines(instances: Any, number: int) -> list[np.ndarray]:
    """Outer corners of an object's parts, each int (N, 2) of x, y in pixels."""
    if instances is None:
        return []
    mask = (instances == number).astype(np.uint8)
    parts, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [cv2.approxPolyDP(part, 1.0, True)[:, 0] for part in parts]
