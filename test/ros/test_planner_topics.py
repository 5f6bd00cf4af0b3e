# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The topics for planners, subscribed to as Nav2's semantic_segmentation_layer does."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from moving_scene import Scene, start
from node_helpers import ROOT, Client, pixels
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, String

from ood_perception.frames.class_mask import class_names
from ood_perception.frames.decode import stamp_ns
from ood_perception.profile import find_profile
from ood_perception.result import Result
from ood_perception.ros import detections
from ood_perception.ros.extra_topics import PlannerTopics, label_info
from ood_perception.ros.settings import Settings

SENSOR_DATA = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
NAMES = class_names(['sky', 'road'])  # as in propagating_node


@pytest.fixture(scope='module')
def scene(ros, tmp_path_factory):
    folder = tmp_path_factory.mktemp('planner')
    name = f'planner_{os.getpid()}'
    control = folder / 'control'
    control.write_text('0.01')
    process = start(folder, name, control, '--labels')
    client = Client(rclpy.create_node(f'costmap_{os.getpid()}'), name)
    client.wait_active(process)
    scene = Scene(client)
    scene.process = process
    yield scene
    code = process.stop()
    client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


@pytest.fixture
def layer(scene):
    """Masks and confidences by their stamp, as a costmap layer gets them."""
    got: dict[str, dict[int, Image]] = {'mask': {}, 'confidence': {}}
    ends = [
        scene.client.ros.create_subscription(
            Image,
            f'/{scene.client.node}/{topic}',
            lambda m, kept=kept: kept.update({stamp_ns(m.header): m}),
            SENSOR_DATA,
        )
        for topic, kept in got.items()
    ]
    yield got
    for end in ends:
        scene.client.ros.destroy_subscription(end)


def pairs(layer) -> list[tuple[int, Image, Image]]:
    return [
        (s, m, layer['confidence'][s])
        for s, m in layer['mask'].items()
        if s in layer['confidence']
    ]


def read_as_the_layer_does(message: Image) -> np.ndarray:
    """`data[row * width + column]`, whatever `step` says."""
    assert message.encoding == 'mono8'
    assert len(message.data) == message.width * message.height
    assert message.step == message.width
    return np.array(message.data, np.uint8).reshape(message.height, message.width)


def test_mask_and_confidence_are_of_one_frame_and_every_class_has_a_name(scene, layer):
    assert scene.until(lambda: len(pairs(layer)) > 10)
    name_of = {name: number for number, name in NAMES.items()}
    for stamp, mask, confidence in pairs(layer):
        assert mask.header == confidence.header
        assert mask.header.frame_id == 'optical'
        classes, sure = read_as_the_layer_does(mask), read_as_the_layer_does(confidence)
        truth = scene.sent[stamp]
        assert classes.shape == sure.shape == truth.shape
        assert {int(v) for v in np.unique(classes)} <= set(NAMES)
        assert ((classes == name_of['hazard']) ^ truth).sum() < 0.05 * truth.sum()
        assert (classes[:100][~truth[:100]] == name_of['sky']).mean() > 0.98
        assert (classes[140:][~truth[140:]] == name_of['road']).mean() > 0.98
        assert (sure[classes == name_of['hazard']] == 240).all()


@pytest.mark.parametrize('size', [(160, 120), (123, 77), (400, 200), (0, 0)])
def test_the_size_is_the_one_asked_for_and_may_change_while_running(scene, layer, size):
    """Widths that no camera driver would leave unpadded among them."""
    assert scene.client.set(mask_size=list(size))[0].successful
    expected = size if any(size) else (320, 240)

    def arrived() -> bool:
        return sum((m.width, m.height) == expected for _, m, _ in pairs(layer)) > 3

    assert scene.until(arrived)
    for _, mask, confidence in pairs(layer):
        assert (mask.width, mask.height) == (confidence.width, confidence.height)
        read_as_the_layer_does(mask), read_as_the_layer_does(confidence)


@pytest.mark.parametrize('size', [[8, 8], [160], [160, -1], [1, 2, 3], [20_000, 20]])
def test_a_size_that_makes_no_image_is_refused(scene, size):
    (answer,) = scene.client.set(mask_size=size)
    assert not answer.successful
    assert 'mask_size' in answer.reason


def test_the_score_of_a_frame(scene):
    got: list[Float32] = []
    topic = f'/{scene.client.node}/frame_score'
    end = scene.client.ros.create_subscription(Float32, topic, got.append, 10)
    assert scene.until(lambda: len(got) > 3)
    assert {round(m.data, 4) for m in got} == {round(240 / 255, 4)}
    scene.client.ros.destroy_subscription(end)


def test_one_of_the_two_topics_is_enough(scene):
    got: list[Image] = []
    topic = f'/{scene.client.node}/mask'
    end = scene.client.ros.create_subscription(Image, topic, got.append, SENSOR_DATA)
    assert scene.until(lambda: len(got) > 3)
    scene.client.ros.destroy_subscription(end)


def test_between_detections_no_mask_is_made_up(scene, layer):
    """With a detect_rate the class mask comes from detections alone, in order."""
    assert scene.client.set(detect_rate=5.0)[0].successful
    scene.client.listen('instances')
    scene.run(0.5)
    layer['mask'].clear(), layer['confidence'].clear()
    scene.client.got['instances'].clear()
    assert scene.until(lambda: len(scene.client.got['instances']) > 30)
    assert 0 < len(layer['mask']) < len(scene.client.got['instances']) / 2
    assert list(layer['mask']) == sorted(layer['mask'])
    assert scene.client.set(detect_rate=0.0)[0].successful


@dataclass(slots=True)
class VisionClass:
    class_id: int = 0
    class_name: str = ''


@dataclass(slots=True)
class LabelInfo:
    header: object = None
    class_map: list[VisionClass] = field(default_factory=list)
    threshold: float = 0.0


class VisionMessages:
    """The fields of vision_msgs 4 that name classes, and no others."""

    VisionClass = VisionClass
    LabelInfo = LabelInfo


def messages():
    """vision_msgs.msg where it is installed, else the same fields."""
    return detections.vision_msgs() or VisionMessages


def test_labels_name_every_class_of_the_mask():
    message = label_info(messages(), NAMES, 0.25)
    assert {c.class_id: c.class_name for c in message.class_map} == {
        0: 'sky',
        1: 'road',
        2: 'unknown',
        3: 'hazard',
        255: 'unlabeled',
    }
    assert message.threshold == 0.25


def named(message) -> tuple[dict[int, str], float]:
    """Names and threshold of a LabelInfo, or of what stands for it (see propagating_node)."""
    if detections.vision_msgs() is not None:
        return {c.class_id: c.class_name for c in message.class_map}, message.threshold
    tree = json.loads(message.data)
    return {int(number): name for number, name in tree['names'].items()}, tree['threshold']


def test_a_planner_that_starts_later_gets_the_newest_labels(scene):
    """Also after the node was inactive, and with the threshold of now."""
    vision = detections.vision_msgs()
    kind = String if vision is None else vision.LabelInfo
    latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    topic = f'/{scene.client.node}/label_info'

    def joins() -> list:
        got: list = []
        end = scene.client.ros.create_subscription(kind, topic, got.append, latched)
        assert scene.client.spin(lambda: bool(got))
        scene.client.spin(timeout=0.3)
        scene.client.ros.destroy_subscription(end)
        return got

    (message,) = joins()
    assert named(message) == (NAMES, 0.5)
    assert scene.client.set(points_threshold=0.75)[0].successful
    assert scene.client.change('deactivate')
    assert scene.client.change('activate')
    (message,) = joins()
    assert named(message) == (NAMES, 0.75)


class Publisher:
    """Keeps what is published to it."""

    def __init__(self, kind, qos) -> None:
        self.kind, self.qos, self.sent = kind, qos, []

    def publish(self, message) -> None:
        self.sent.append(message)

    def get_subscription_count(self) -> int:
        return 1


def topics(vision):
    made, lines = {}, []

    def create(kind, name, qos=None):
        return made.setdefault(name, Publisher(kind, qos))

    planner = PlannerTopics(create, vision, lambda level, text: lines.append(text))
    return planner, made, lines


def test_labels_are_latched_and_follow_the_threshold():
    planner, made, lines = topics(VisionMessages)
    latched = made['label_info'].qos
    assert latched.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert latched.reliability == ReliabilityPolicy.RELIABLE
    planner.name_classes(['road'], Settings())
    planner.announce(Settings(points_threshold=0.75))
    assert [m.threshold for m in made['label_info'].sent] == [0.5, 0.75]
    assert [c.class_name for c in made['label_info'].sent[-1].class_map] == [
        'road',
        'unknown',
        'hazard',
        'unlabeled',
    ]
    assert lines == []


@pytest.mark.parametrize('vision', [None, object()], ids=['absent', 'older than LabelInfo'])
def test_without_label_messages_everything_else_goes_on(vision):
    planner, made, lines = topics(vision)
    assert 'label_info' not in made
    assert lines == []  # `ood doctor` and the first lines of the log tell it
    planner.name_classes(['road'], Settings())
    heat = np.full((20, 30), 200, np.uint8)
    planner.publish(None, Result(heatmap=heat, semantic=np.zeros_like(heat)), Settings())
    assert len(made['mask'].sent) == len(made['confidence'].sent) == 1
    assert made['frame_score'].sent[0].data == pytest.approx(200 / 255)


def test_more_classes_than_a_mask_can_hold_cost_only_the_mask():
    planner, made, lines = topics(VisionMessages)
    planner.name_classes([f'class {i}' for i in range(254)], Settings())
    assert 'at most 253' in lines[0]
    assert made['label_info'].sent == []
    assert planner.wants() == {'heatmap'}  # for the frame's score
    planner.publish(None, Result(heatmap=np.zeros((4, 4), np.uint8)), Settings())
    assert made['mask'].sent == []


@pytest.mark.parametrize('classes', [[], ['road']], ids=['none', 'one'])
def test_a_class_without_a_name_is_no_unknown_object(classes):
    planner, made, _ = topics(VisionMessages)
    planner.name_classes(classes, Settings())
    heat, semantic = np.zeros((20, 30), np.uint8), np.full((20, 30), 9, np.uint8)
    planner.publish(None, Result(heatmap=heat, semantic=semantic), Settings())
    (mask,) = made['mask'].sent
    assert set(np.unique(pixels(mask))) == ({255} if classes else {0})


def test_the_costmap_of_the_documentation_uses_our_topics_and_classes():
    page = (ROOT / 'docs' / 'nav2.md').read_text(encoding='utf-8')
    blocks = [yaml.safe_load(b) for b in re.findall(r'```yaml\n(.*?)```', page, re.DOTALL)]
    (layer,) = [
        b['local_costmap']['local_costmap']['ros__parameters']['semantic_layer']
        for b in blocks
        if 'semantic_layer'
        in b.get('local_costmap', {}).get('local_costmap', {}).get('ros__parameters', {})
    ]
    source = layer[layer['observation_sources']]
    assert source['segmentation_topic'] == '/ood/mask'
    assert source['confidence_topic'] == '/ood/confidence'
    assert source['labels_topic'] == '/ood/label_info'
    classes = yaml.safe_load(find_profile('compact').read_text(encoding='utf-8'))['classes']
    listed = [c for kind in source['class_types'] for c in source[kind]['classes']]
    assert len(set(listed)) == len(listed)
    assert set(listed) == set(class_names(classes).values())
    (monitor,) = [
        b['collision_monitor']['ros__parameters'] for b in blocks if 'collision_monitor' in b
    ]
    assert monitor['unknown']['topic'] == '/ood/points'
    assert monitor['unknown']['type'] == 'pointcloud'
    assert set(monitor['polygons']) <= set(monitor)
