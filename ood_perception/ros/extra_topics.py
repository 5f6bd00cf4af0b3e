# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What other tools read: classes for planners, 3D boxes, outlines for Foxglove, the pipeline.

Each topic exists where its message package can be imported; `ood doctor` and the log's first lines
name those that are absent. Nav2's ``semantic_segmentation_layer`` takes a mono8 mask, a mono8
confidence of the same stamp and a latched vision_msgs/LabelInfo, and walks the pixels without
heeding padding, so there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, Header

from ood_perception.detections import Detection
from ood_perception.frames.class_mask import class_mask, class_names
from ood_perception.result import Result
from ood_perception.ros import qos
from ood_perception.ros.detections import to_annotations, to_vision_3d
from ood_perception.ros.image_topic import ImageTopic, heard
from ood_perception.ros.settings import Settings

TOPICS = {
    'mask': (
        'sensor_msgs/msg/Image',
        'mono8; class of each pixel as label_info names it: the known ones, unknown, and hazard = '
        'unknown on the ground (size: parameter mask_size)',
    ),
    'confidence': (
        'sensor_msgs/msg/Image',
        'mono8; 0..255 = confidence 0..1 in that class, with the stamp of the mask',
    ),
    'label_info': (
        'vision_msgs/msg/LabelInfo',
        'latched: name of each class in the mask (where vision_msgs is installed)',
    ),
    'frame_score': (
        'std_msgs/msg/Float32',
        'highest probability 0..1 of any pixel of the frame to be unknown',
    ),
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

Create = Callable[..., Any]
"""create(type, name, qos=None) makes a lifecycle publisher."""


def foxglove_msgs() -> Any:
    """Module foxglove_msgs.msg, or None where it is not installed."""
    try:
        import foxglove_msgs.msg
    except ImportError:
        return None
    return foxglove_msgs.msg


class ExtraTopics:
    """
    Objects, and facts on the pipeline, of one camera; `metres` tells whether depth is read.

    `vision` and `foxglove` are the modules of their messages, None where they are not installed.
    """

    def __init__(self, create: Create, vision: Any, foxglove: Any, metres: bool) -> None:
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
            info = self._vision.VisionInfo(header=Header(), method=profile)
            info.database_location, info.database_version = labels, self._version
            self.vision_info.publish(info)

    def publish(self, header: Any, result: Result, found: Sequence[Detection]) -> None:
        """Send a frame's objects to whoever listens, none at all as an empty message."""
        if heard(self.detections_3d):
            self.detections_3d.publish(to_vision_3d(self._vision, header, found))
        if heard(self.annotations):
            self.annotations.publish(to_annotations(self._foxglove, header, result, found))


class PlannerTopics:
    """Topics for planners of one camera; `report(level, text)` logs a line."""

    def __init__(self, create: Create, vision: Any, report: Callable[[str, str], None]) -> None:
        self._report = report
        self._vision = vision if hasattr(vision, 'LabelInfo') else None
        self.mask = ImageTopic('mono8', create(Image, 'mask'))
        self.confidence = ImageTopic('mono8', create(Image, 'confidence'))
        self.frame_score = create(Float32, 'frame_score')
        self.label_info: Any = None
        if self._vision is not None:
            self.label_info = create(self._vision.LabelInfo, 'label_info', qos.profile('latched'))
        self._classes: list[str] = []
        self._names: dict[int, str] = {}

    def name_classes(self, classes: Sequence[str], settings: Settings) -> None:
        """
        Take the profile's classes, by id, and announce them; the node must be active.

        With more of them than a mono8 image has room for, no mask is published.
        """
        self._classes = list(classes)
        try:
            self._names = class_names(classes)
        except ValueError as error:
            self._names = {}
            self._report('warn', f'no ~/mask: {error}')
        self.announce(settings)

    def announce(self, settings: Settings) -> None:
        """Send the names to whoever listens and whoever comes later."""
        if self.label_info is not None and self._names:
            message = label_info(self._vision, self._names, settings.points_threshold)
            self.label_info.publish(message)

    def wants(self) -> set[str]:
        """Fields of a `Result` that somebody subscribes to."""
        wanted = set()
        if self._names and (self.mask.wanted or self.confidence.wanted):
            wanted |= {'heatmap', 'instances', 'semantic'}
        if heard(self.frame_score):
            wanted.add('heatmap')
        return wanted

    def publish(self, header: Any, result: Result, settings: Settings) -> None:
        """Send what a frame's result says."""
        if result.heatmap is None:
            return
        if heard(self.frame_score):
            self.frame_score.publish(Float32(data=float(result.heatmap.max()) / 255))
        if not self._names or not (self.mask.wanted or self.confidence.wanted):
            return
        width, height = settings.mask_size
        ids: Any = () if result.ids is None else result.ids
        around = result.surroundings
        if around is None or result.ids is None:
            around = np.zeros(len(ids), np.uint8)
        mask, confidence = class_mask(
            self._classes,
            result.semantic if self._classes else None,
            result.heatmap,
            result.instances,
            ids,
            around,
            settings.points_threshold,
            (height, width) if width else None,
        )
        for topic, pixels in ((self.mask, mask), (self.confidence, confidence)):
            if topic.wanted:
                topic.publish(header, pixels, settings.jpeg_quality)


def label_info(messages: Any, names: dict[int, str], threshold: float) -> Any:
    """Name the classes of a mask as a vision_msgs/LabelInfo."""
    return messages.LabelInfo(
        header=Header(),
        class_map=[messages.VisionClass(class_id=i, class_name=n) for i, n in names.items()],
        threshold=float(threshold),
    )
