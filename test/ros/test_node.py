# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from node_helpers import (
    TYPES,
    NodeProcess,
    client_of,
    image,
    picture,
    pixels,
    rows,
)
from node_helpers import write_profile as tiny
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from ood_perception.detections import rows as rows_of
from ood_perception.frames.depth import Place
from ood_perception.result import Result
from ood_perception.ros import detections


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    """A client of a running node with one raw camera; the node lives as long as the module."""
    folder = tmp_path_factory.mktemp('node')
    name = f'node_{os.getpid()}'
    process = NodeProcess(
        folder, name, {'image': '/camera/image_raw'}, profile=str(tiny(folder)), publish_score=True
    )
    with client_of(process, name) as client:
        yield client


def newest(client, topic, stamp):
    return next((m for m in client.got[topic] if m.header.stamp.sec == stamp), None)


def test_no_subscriber_no_work(client):
    frame = image(picture())
    assert client.feed('/camera/image_raw', frame, lambda: client.count('discarded') >= 3)
    assert client.count('processed') == 0
    assert client.values()['topic'] == '/camera/image_raw'


def test_all_outputs_of_a_frame(client):
    client.listen(*TYPES)
    frame = image(picture(90, 121), frame='front_optical_frame')
    frame.header.stamp.sec, frame.header.stamp.nanosec = 1000, 123456789
    assert client.feed(
        '/camera/image_raw', frame, lambda: all(client.got[t] for t in TYPES), timeout=90
    )
    client.spin(timeout=1.0)
    joined = [{m.header.stamp.sec for m in client.got[t]} for t in TYPES if 'json' not in t]
    stamp = max(set.intersection(*joined))
    found = {t: newest(client, t, stamp) for t in TYPES if 'json' not in t}
    for topic, message in found.items():
        assert message.header.stamp.nanosec == 123456789, topic
        assert message.header.frame_id == 'front_optical_frame', topic
    encodings = {t: m.encoding for t, m in found.items() if isinstance(m, Image)}
    assert encodings == {
        'heatmap': 'mono8',
        'score': '32FC1',
        'instances': 'mono16',
        'overlay': 'rgb8',
    }
    for topic in encodings:
        assert (found[topic].height, found[topic].width) == (90, 121)
    assert np.isfinite(pixels(found['score'])).all()
    labels = cv2.imdecode(np.frombuffer(found['instances/compressed'].data, np.uint8), -1)
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, pixels(found['instances']))
    heat = cv2.imdecode(np.frombuffer(found['heatmap/compressed'].data, np.uint8), -1)
    assert np.abs(heat.astype(int) - pixels(found['heatmap'])).mean() < 4
    listed = {row['id'] for message in client.got['detections_json'] for row in rows(message)}
    seen = {int(i) for m in client.got['instances'] for i in np.unique(pixels(m)) if i}
    assert seen == listed


def test_diagnostics(client):
    frame = image(picture())
    frame.header.stamp.sec = 5000
    client.listen('heatmap')
    assert client.feed('/camera/image_raw', frame, lambda: client.count('processed') > 5)
    values = client.values()
    for key in ('fps', 'fps_in', 'dropped', 'last_error', 'total_ms_p50', 'total_ms_p95'):
        assert key in values
    assert any(k.endswith('_ms_p95') and k.startswith('segmentor') for k in values)
    assert client.statuses['camera']['hardware_id'] == 'camera'
    pipeline = client.statuses['pipeline']
    assert pipeline['values']['state'] == 'active'
    assert pipeline['values']['profile'].endswith('tiny.yaml')
    assert float(pipeline['values']['memory_mb']) > 50
    kinds = ('processed', 'dropped', 'discarded', 'bad', 'failed')
    # the books balance once the frame in work and the one that waits are through
    assert client.spin(
        lambda: client.count('received') == sum(client.count(kind) for kind in kinds), 10
    )


def test_newest_frame_wins(client):
    """A burst yields few frames, in order, and always its last one.

    Where the others are overtaken is not ours to say: the reader keeps one frame (`latest`), so
    they may never reach the node. What the node itself overtakes is counted, see test_mailbox.
    """
    frame = image(picture(240, 320))  # all sixty fit into the shared memory
    client.spin(timeout=1.5)
    before = client.count('received')
    for i in range(60):
        frame.header.stamp.sec = 10_000 + i
        client.publish('/camera/image_raw', frame)
    came = client.spin(lambda: newest(client, 'heatmap', 10_059) is not None, 30)
    # Whether the last frame was lost on its way to the node or in it.
    kinds = ('received', 'processed', 'dropped', 'discarded', 'bad', 'failed')
    assert came, {'received before': before} | {kind: client.count(kind) for kind in kinds}
    client.spin(timeout=2.0)
    seconds = [m.header.stamp.sec for m in client.got['heatmap'] if m.header.stamp.sec >= 10_000]
    assert seconds == sorted(set(seconds))
    assert seconds[-1] == 10_059
    assert len(seconds) < 60
    assert client.count('received') > before


def test_size_and_encoding_may_change_from_frame_to_frame(client):
    stamp = 20_000
    for height, width, encoding in ((64, 80, 'bgr8'), (100, 60, 'mono8'), (64, 80, 'rgba8')):
        shown = picture(height, width)
        shown = {
            'bgr8': shown[..., ::-1],
            'mono8': shown[..., 0],
            'rgba8': np.dstack([shown, shown[..., 0]]),
        }[encoding]
        frame = image(np.ascontiguousarray(shown), encoding)
        stamp += 1000
        frame.header.stamp.sec = stamp
        seen = len(client.got['overlay'])
        assert client.feed(
            '/camera/image_raw',
            frame,
            lambda s=seen, h=height: any(m.height == h for m in client.got['overlay'][s:]),
        )


def test_live_parameters(client):
    frame = image(picture())
    frame.header.stamp.sec = 40_000
    assert all(r.successful for r in client.set(publish_score=False, overlay_alpha=0.0))
    client.spin(timeout=1.0)
    client.got['score'].clear()
    client.got['overlay'].clear()
    assert client.feed('/camera/image_raw', frame, lambda: len(client.got['overlay']) >= 3)
    assert client.got['score'] == []
    assert all(r.successful for r in client.set(publish_score=True, overlay_alpha=0.6))
    assert client.feed('/camera/image_raw', frame, lambda: bool(client.got['score']))
    (refused,) = client.set(profile='other')
    assert not refused.successful
    assert 'unconfigured' in refused.reason
    (refused,) = client.set(detection_threshold=2.0)
    assert not refused.successful


def test_qos_that_does_not_fit_is_reported_with_both_sides(client):
    latched = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
    client.ros.create_subscription(Image, f'/{client.node}/heatmap', lambda m: None, latched)
    assert client.spin(lambda: 'does not fit ours' in client.process.text(), 20)
    (line,) = [x for x in client.process.text().splitlines() if 'does not fit ours' in x]
    assert f'/{client.node}/heatmap' in line
    assert f'client_{os.getpid()}' in line
    assert line.lower().count('volatile') >= 1
    assert 'transient' in line.lower()


def test_camera_info_travels_with_the_frame(client):
    info = CameraInfo(height=90, width=121)
    info.k = [100.0, 0, 60, 0, 100.0, 45, 0, 0, 1.0]
    got: list[CameraInfo] = []
    client.ros.create_subscription(CameraInfo, f'/{client.node}/camera_info', got.append, 10)
    frame = image(picture(90, 121))
    frame.header.stamp.sec = 60_000

    def arrived() -> bool:
        client.publish('/camera/camera_info', info)
        return bool(got)

    assert client.feed('/camera/image_raw', frame, arrived)
    assert got[0].header.stamp.sec > 60_000
    assert got[0].k[0] == 100.0


def test_kill_and_respawn(client):
    """
    After kill -9 a new process of the same name serves the same subscribers.

    The last test with this node, which it ends.
    """
    frame, process = image(picture()), client.process
    client.listen('heatmap')
    frame.header.stamp.sec = 80_000
    assert client.feed(
        '/camera/image_raw',
        frame,
        lambda: any(m.header.stamp.sec > 80_000 for m in client.got['heatmap']),
    )
    assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    client.spin(timeout=0.3)  # what was on its way from the old process
    client.got['heatmap'].clear()
    process.start()
    assert client.feed('/camera/image_raw', frame, lambda: bool(client.got['heatmap']), 120)
    assert pixels(client.got['heatmap'][0]).shape == (96, 128)
    assert process.stop(signal.SIGTERM) == 0, process.text()


@dataclass(slots=True)
class Point2D:
    x: float = 0.0
    y: float = 0.0


@dataclass(slots=True)
class Point(Point2D):
    z: float = 0.0


@dataclass(slots=True)
class Pose2D:
    position: Point2D = field(default_factory=Point2D)
    theta: float = 0.0


@dataclass(slots=True)
class Pose:
    position: Point = field(default_factory=Point)


@dataclass(slots=True)
class PoseWithCovariance:
    pose: Pose = field(default_factory=Pose)


@dataclass(slots=True)
class BoundingBox2D:
    center: Pose2D = field(default_factory=Pose2D)
    size_x: float = 0.0
    size_y: float = 0.0


@dataclass(slots=True)
class ObjectHypothesis:
    class_id: str = ''
    score: float = 0.0


class VisionMessages:
    """The fields of vision_msgs 4 (Humble and later), and no others."""

    @dataclass(slots=True)
    class ObjectHypothesisWithPose:
        hypothesis: ObjectHypothesis = field(default_factory=ObjectHypothesis)
        pose: PoseWithCovariance = field(default_factory=PoseWithCovariance)

    @dataclass(slots=True)
    class Detection2D:
        header: object = None
        results: list = field(default_factory=list)
        bbox: BoundingBox2D = field(default_factory=BoundingBox2D)
        id: str = ''

    @dataclass(slots=True)
    class Detection2DArray:
        header: object = None
        detections: list = field(default_factory=list)


def messages():
    """vision_msgs.msg where it is installed, else the same fields."""
    return detections.vision_msgs() or VisionMessages


def test_vision_messages_have_the_published_shape():
    from std_msgs.msg import Header

    found = rows_of(
        Result(
            boxes=np.array([[10, 20, 30, 60], [0, 0, 4, 2]], np.float32),
            ids=np.array([9, 3]),
            areas=np.array([500, 8]),
            confidences=np.array([0.75, 0.5], np.float32),
        )
    )
    found[0].place = Place((1.0, 2.0, 3.0), (0.1, 0.2, 0.3), 3.7)
    header = Header(frame_id='camera_optical_frame')
    array = detections.to_vision(messages(), header, found)
    assert array.header == header
    first, second = array.detections
    assert (first.header, first.id, second.id) == (header, '9', '3')
    assert (first.bbox.center.position.x, first.bbox.center.position.y) == (20, 40)
    assert (first.bbox.size_x, first.bbox.size_y) == (20, 40)
    (hypothesis,) = first.results
    assert (hypothesis.hypothesis.class_id, hypothesis.hypothesis.score) == ('unknown', 0.75)
    position = hypothesis.pose.pose.position
    assert (position.x, position.y, position.z) == (1.0, 2.0, 3.0)
    assert second.results[0].pose.pose.position.z == 0.0
