# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The topics of one camera: who listens, and writing a result into preallocated messages.

Nothing is computed, encoded or copied for a topic without a subscriber. Every message of a frame
carries the header of the camera's message unchanged, so that stamps can be joined exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import String

from ood_perception.detections import Detection, rows
from ood_perception.drawing import draw
from ood_perception.result import Result
from ood_perception.ros import detections, extra_topics, gate, qos
from ood_perception.ros.image_topic import ImageTopic, heard
from ood_perception.ros.settings import Settings

TOPICS: dict[str, tuple[str, str]] = {
    'heatmap': (
        'sensor_msgs/msg/Image',
        'mono8; 0..255 = probability 0..1 that the pixel belongs to something unknown',
    ),
    'heatmap/compressed': ('sensor_msgs/msg/CompressedImage', 'the heatmap as JPEG'),
    'score': (
        'sensor_msgs/msg/Image',
        '32FC1; raw score, higher = more unknown (parameter publish_score)',
    ),
    'instances': (
        'sensor_msgs/msg/Image',
        'mono16; 0 = none, otherwise the id of the object that owns the pixel',
    ),
    'instances/compressed': (
        'sensor_msgs/msg/CompressedImage',
        'the instances as 16-bit PNG, without loss',
    ),
    'overlay': (
        'sensor_msgs/msg/Image',
        'rgb8; the camera image with heatmap, outlines, ids and scores',
    ),
    'overlay/compressed': ('sensor_msgs/msg/CompressedImage', 'the overlay as JPEG'),
    'detections': (
        'vision_msgs/msg/Detection2DArray',
        'one detection an object, id = value in instances, score 0..1, box in pixels '
        '(where vision_msgs is installed)',
    ),
    'detections_json': (
        'std_msgs/msg/String',
        'the same as JSON, with area, raw score, surroundings and, with depth, position, size '
        'and distance in metres',
    ),
    'points': (
        'sensor_msgs/msg/PointCloud2',
        'x, y, z [m, optical frame], score 0..1, instance id of unknown points (parameter depth)',
    ),
    'camera_info': (
        'sensor_msgs/msg/CameraInfo',
        'the camera_info that belongs to the images above, with the stamp of the frame',
    ),
    **gate.TOPICS,
    **extra_topics.TOPICS,
}
"""Topic below ``~/`` (with several cameras below ``~/<camera>/``): type and meaning."""


class CameraOutputs:
    """All output topics of one camera."""

    def __init__(
        self, node: Any, camera: str, settings: Settings, options: dict[str, Any]
    ) -> None:
        self.camera = camera
        self._node, self._options = node, options
        self._qos = qos.profile(settings.output_qos)
        self._publishers: list[Any] = []
        self._vision = detections.vision_msgs()

        def image(name: str, encoding: str) -> ImageTopic:
            sibling = None
            if settings.publish_compressed:
                sibling = self._create(CompressedImage, f'{name}/compressed')
            return ImageTopic(encoding, self._create(Image, name), sibling)

        metres = settings.depth != 'none'
        self.heatmap = image('heatmap', 'mono8')
        self.instances = image('instances', 'mono16')
        self.overlay = image('overlay', 'rgb8')
        self.score: ImageTopic | None = None
        self.detections_json = self._create(String, 'detections_json')
        self.detections: Any = None
        if self._vision:
            self.detections = self._create(self._vision.Detection2DArray, 'detections')
        self.points = self._create(PointCloud2, 'points') if metres else None
        self.camera_info = self._create(CameraInfo, 'camera_info')
        self.planner = extra_topics.PlannerTopics(self._create, self._vision, node.report)
        foxglove = extra_topics.foxglove_msgs()
        self.extra = extra_topics.ExtraTopics(self._create, self._vision, foxglove, metres)
        self.state = gate.StateTopic(
            node.create_publisher(
                DiagnosticStatus, self._topic('state'), qos.profile('latched'), **options
            ),
            f'{node.get_fully_qualified_name()}: {camera or "camera"}',
            node.why_blind,
            lambda: '; '.join(str(issue) for issue in node.health.issues(camera)),
        )
        self.set_score(settings.publish_score)

    def set_score(self, enabled: bool) -> None:
        """Offer ~/score, or no longer."""
        if enabled and self.score is None:
            publisher = self._create(Image, 'score')
            if self._node.active:  # it has missed the transition that wakes publishers
                publisher.on_activate(None)
            self.score = ImageTopic('32FC1', publisher)
        elif not enabled and self.score is not None:
            self._destroy(self.score.publisher)
            self.score = None

    def announce(self, classes: Sequence[str], settings: Settings) -> None:
        """Say what runs and what its classes are; the node must be active."""
        self.planner.name_classes(classes, settings)
        labels = self._node.resolve_topic_name(self._topic('label_info'))
        self.extra.announce(settings.profile, labels)

    def destroy(self) -> None:
        """Withdraw all topics."""
        if self._node.context.ok():
            self.state.end('the node is cleaned up')
        self._node.destroy_publisher(self.state.publisher)
        for publisher in list(self._publishers):
            self._destroy(publisher)

    @property
    def publishers(self) -> list[Any]:
        """Publishers of all topics."""
        return [*self._publishers, self.state.publisher]

    @property
    def points_wanted(self) -> bool:
        """Whether somebody subscribes to the points."""
        return heard(self.points)

    @property
    def rows_wanted(self) -> bool:
        """Whether somebody subscribes to a form of the detections."""
        return heard(self.detections_json) or heard(self.detections) or self.extra.wanted

    def wants(self) -> set[str]:
        """Fields of a `Result` that somebody subscribes to, in the vocabulary of the pipeline."""
        wanted = self.wants_to_follow() | self.planner.wants()
        if self.points_wanted:
            wanted |= {'heatmap', 'instances'}
        if self.score is not None and self.score.wanted:
            wanted.add('score')
        if self.state.wanted:
            wanted.add('instances')
        return wanted

    def wants_to_follow(self) -> set[str]:
        """Fields of a `Result` that can be moved from frame to frame and are subscribed to."""
        wanted = set()
        if self.heatmap.wanted:
            wanted.add('heatmap')
        if self.instances.wanted or self.rows_wanted:
            wanted.add('instances')
        if self.overlay.wanted:
            wanted |= {'heatmap', 'instances'}
        return wanted

    def publish_maps(
        self,
        header: Any,
        size: tuple[int, ...],
        result: Result,
        settings: Settings,
        camera_info: Any = None,
        shown: bool = True,
        measured: bool = True,
    ) -> None:
        """
        Send what needs no metres: heatmap, score, instances, classes, camera_info.

        Args:
            size: (H, W) of the image.
            result: on the host, already without the objects that are not to be published.
            shown: whether to send what can also be moved from an earlier frame.
            measured: whether the result was found in this frame, and not moved to it.
        """
        quality = settings.jpeg_quality
        if measured:
            if self.score is not None and self.score.wanted and result.score is not None:
                self.score.publish(header, result.score, quality)
            self.planner.publish(header, result, settings)
        if not shown:
            return
        if self.heatmap.wanted and result.heatmap is not None:
            self.heatmap.publish(header, result.heatmap, quality)
        if self.instances.wanted:
            # A profile without masks still answers, so that nobody who joins topics starves.
            empty = result.instances is None
            pixels = np.zeros(size, np.uint16) if empty else result.instances
            self.instances.publish(header, pixels, quality)
        if camera_info is not None and heard(self.camera_info):
            # The message belongs to the executor's thread; only the header is ours.
            ours = copy.copy(camera_info)
            ours.header = header
            self.camera_info.publish(ours)

    def publish_objects(
        self,
        header: Any,
        image: Any,
        result: Result,
        settings: Settings,
        places: dict[int, Any],
        points: Any = None,
    ) -> None:
        """
        Send what shows metres where there are any: detections, points, overlay.

        Args:
            image: uint8 (H, W, 3) RGB; only its shape counts while nobody wants the overlay.
            result: on the host, already without the objects that are not to be published.
            places: where the objects are in 3D, by id.
        """
        found = rows(result)
        for item in found:
            item.place = places.get(item.id)
        if heard(self.detections_json):
            text = detections.to_json(header, self.camera, image.shape[:2], found)
            self.detections_json.publish(String(data=text))
        if heard(self.detections):
            self.detections.publish(detections.to_vision(self._vision, header, found))
        self.extra.publish(header, result, found)
        self.publish_points(points)
        if self.overlay.wanted:
            self._publish_overlay(header, image, result, settings, found)

    def publish_points(self, points: Any) -> None:
        """Send a sensor_msgs/PointCloud2, unless it is None."""
        if points is not None and self.points is not None:
            self.points.publish(points)

    def _publish_overlay(
        self,
        header: Any,
        image: NDArray[np.uint8],
        result: Result,
        settings: Settings,
        found: list[Detection],
    ) -> None:
        labels = [item.label for item in found] if settings.overlay_labels else None
        pixels = draw(
            image,
            result.heatmap,
            result.instances,
            result.boxes,
            labels,
            settings.overlay_alpha,
            settings.overlay_colormap,
            out=self.overlay.buffer(*image.shape[:2]),
        )
        self.overlay.publish(header, pixels, settings.jpeg_quality)

    def _create(self, kind: Any, name: str, profile: Any = None) -> Any:
        publisher = self._node.create_lifecycle_publisher(
            kind, self._topic(name), profile or self._qos, **self._options
        )
        self._publishers.append(publisher)
        return publisher

    def _topic(self, name: str) -> str:
        return f'~/{self.camera}/{name}' if self.camera else f'~/{name}'

    def _destroy(self, publisher: Any) -> None:
        self._publishers.remove(publisher)
        self._node.destroy_lifecycle_publisher(publisher)
