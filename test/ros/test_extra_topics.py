# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""3D boxes, outlines and pipeline facts, in the fields of the real messages and no others."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from geometry_msgs.msg import Pose, PoseWithCovariance, Vector3
from std_msgs.msg import Header

from ood_perception.detections import rows
from ood_perception.frames.depth import Place
from ood_perception.result import Result
from ood_perception.ros import detections
from ood_perception.ros.extra_topics import ExtraTopics, foxglove_msgs


@dataclass(slots=True)
class BoundingBox3D:
    center: Pose = field(default_factory=Pose)
    size: Vector3 = field(default_factory=Vector3)


@dataclass(slots=True)
class Hypothesis:
    class_id: str = ''
    score: float = 0.0


class VisionMessages:
    """Of vision_msgs 4."""

    @dataclass(slots=True)
    class ObjectHypothesisWithPose:
        hypothesis: Hypothesis = field(default_factory=Hypothesis)
        pose: PoseWithCovariance = field(default_factory=PoseWithCovariance)

    @dataclass(slots=True)
    class Detection3D:
        header: object = None
        results: list = field(default_factory=list)
        bbox: BoundingBox3D = field(default_factory=BoundingBox3D)
        id: str = ''

    @dataclass(slots=True)
    class Detection3DArray:
        header: object = None
        detections: list = field(default_factory=list)

    @dataclass(slots=True)
    class VisionInfo:
        header: object = None
        method: str = ''
        database_location: str = ''
        database_version: int = 0


@dataclass(slots=True)
class Point2:
    x: float = 0.0
    y: float = 0.0


@dataclass(slots=True)
class Color:
    r: float = 0.0
    g: float = 0.0
    b: float = 0.0
    a: float = 0.0


@dataclass
class PointsAnnotation:
    LINE_LOOP = 2
    timestamp: object = None
    type: int = 0
    points: list = field(default_factory=list)
    outline_color: Color = field(default_factory=Color)
    thickness: float = 0.0


@dataclass(slots=True)
class TextAnnotation:
    timestamp: object = None
    position: Point2 = field(default_factory=Point2)
    text: str = ''
    font_size: float = 0.0
    text_color: Color = field(default_factory=Color)


class FoxgloveMessages:
    """Of foxglove_msgs, what every version has."""

    Point2, Color = Point2, Color
    PointsAnnotation, TextAnnotation = PointsAnnotation, TextAnnotation

    @dataclass(slots=True)
    class ImageAnnotations:
        points: list = field(default_factory=list)
        texts: list = field(default_factory=list)


class Publisher:
    """Keeps what is published to it."""

    def __init__(self) -> None:
        self.sent, self.listeners = [], 1

    def publish(self, message) -> None:
        self.sent.append(message)

    def get_subscription_count(self) -> int:
        return self.listeners


def topics(vision=None, foxglove=None, metres: bool = True):
    made: dict[str, Publisher] = {}
    vision = vision or detections.vision_msgs() or VisionMessages
    foxglove = foxglove or foxglove_msgs() or FoxgloveMessages

    def create(kind, name, qos=None):
        return made.setdefault(name, Publisher())

    return ExtraTopics(create, vision, foxglove, metres), made


def scene():
    """Two objects, one of two parts, and only the other has a place."""
    instances = np.zeros((120, 160), np.uint16)
    cv2.circle(instances, (40, 60), 20, 9, -1)
    instances[100:110, 10:30] = instances[100:110, 120:150] = 3
    result = Result(
        instances=instances,
        boxes=np.array([[20, 40, 61, 81], [10, 100, 150, 110]], np.float32),
        ids=np.array([9, 3]),
        areas=np.array([1257, 500]),
        confidences=np.array([0.75, 0.5], np.float32),
    )
    found = rows(result)
    found[0].place = Place((1.0, 2.0, 3.0), (0.1, 0.2, 0.3), 3.7)
    return Header(frame_id='optical'), result, found


def test_boxes_in_metres():
    extra, made = topics()
    header, result, found = scene()
    extra.publish(header, result, found)
    (message,) = made['detections_3d'].sent
    (box,) = message.detections  # no place, no box
    assert (message.header, box.header, box.id) == (header, header, '9')
    centre, size = box.bbox.center.position, box.bbox.size
    assert (centre.x, centre.y, centre.z) == (1.0, 2.0, 3.0)
    assert (size.x, size.y, size.z) == (0.1, 0.2, 0.3)
    (guess,) = box.results
    assert (guess.hypothesis.class_id, guess.hypothesis.score) == ('unknown', 0.75)
    assert guess.pose.pose.position == centre


def test_outlines_are_those_of_the_masks():
    extra, made = topics()
    header, result, found = scene()
    extra.publish(header, result, found)
    (message,) = made['annotations'].sent
    assert [t.text for t in message.texts] == ['9: 0.75 3.7 m', '3: 0.50']
    assert all(p.type == 2 and p.outline_color.a == 1 for p in message.points)
    assert len(message.points) == 3
    drawn = np.zeros(result.instances.shape, np.uint8)
    for part in message.points:
        corners = np.array([[p.x - 0.5, p.y - 0.5] for p in part.points]).astype(np.int32)
        cv2.fillPoly(drawn, [corners], (1,))
    truth = result.instances > 0
    assert ((drawn > 0) ^ truth).sum() < 0.05 * truth.sum()


def test_no_objects_take_the_outlines_away():
    extra, made = topics()
    extra.publish(Header(), Result(), [])
    assert [m.points for m in made['annotations'].sent] == [[]]


def test_the_pipeline_names_itself():
    extra, made = topics()
    for _ in range(2):
        extra.announce('compact', '/ood/label_info')
    first, second = made['vision_info'].sent
    assert (first.method, first.database_location) == ('compact', '/ood/label_info')
    assert second.database_version == first.database_version + 1


def test_nothing_is_made_for_nobody():
    extra, made = topics()
    for publisher in made.values():
        publisher.listeners = 0
    assert not extra.wanted
    extra.publish(None, None, None)
    assert not any(publisher.sent for publisher in made.values())
    made['annotations'].listeners = 1
    assert extra.wanted


def test_without_the_messages_or_depth_there_are_no_topics():
    extra, made = topics(vision=object(), foxglove=FoxgloveMessages, metres=True)
    assert set(made) == {'annotations'}  # a vision_msgs that is older than all of it
    extra.announce('compact', '/ood/label_info')
    assert set(topics(VisionMessages, FoxgloveMessages, metres=False)[1]) == {
        'annotations',
        'vision_info',
    }
