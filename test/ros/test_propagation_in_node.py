# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Detections at `detect_rate`, outputs at the camera's: a moving object in front of the node."""

from __future__ import annotations

import itertools
import json
import os
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from moving_scene import FPS, Scene, start
from node_helpers import Client, image, pixels, rows
from sensor_msgs.msg import CameraInfo

from ood_perception.frames.decode import stamp_ns
from ood_perception.frames.stamps import Match
from ood_perception.result import Result
from ood_perception.ros.camera_stream import CameraStream, PendingFrame
from ood_perception.ros.publishing import FramePublisher
from ood_perception.ros.settings import Settings

DETECTIONS = 5.0
LATENCY = 0.1


TOPICS = ('heatmap', 'instances', 'overlay', 'detections_json', 'score')


@pytest.fixture(scope='module')
def scene(ros, tmp_path_factory):
    folder = tmp_path_factory.mktemp('propagating')
    name = f'propagating_{os.getpid()}'
    control = folder / 'control'
    control.write_text(str(LATENCY))
    process = start(folder, name, control, detect_rate=DETECTIONS, publish_score=True)
    client = Client(rclpy.create_node(f'watcher_{os.getpid()}'), name)
    client.wait_active(process)
    client.listen(*TOPICS)
    scene = Scene(client)
    scene.control, scene.process = control, process
    assert scene.until(lambda: len(client.got['instances']) > 10), process.text()[-3000:]
    yield scene
    code = process.stop()
    client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


def stamps(scene: Scene, topic: str) -> list[int]:
    got = scene.client.got[topic]
    if topic == 'detections_json':
        headers = [json.loads(m.data)['header']['stamp'] for m in got]
        return [h['sec'] * 10**9 + h['nanosec'] for h in headers]
    return [stamp_ns(m.header) for m in got]


def fresh(scene: Scene) -> None:
    scene.client.spin(timeout=0.5)
    for topic in TOPICS:
        scene.client.got[topic].clear()


def in_order(found: list[int]) -> bool:
    """Whether no stamp comes twice or goes back."""
    return all(a < b for a, b in itertools.pairwise(found))


def test_outputs_at_the_rate_of_the_camera_follow_the_object(scene):
    client = scene.client
    fresh(scene)
    before = {k: client.count(k) for k in ('processed', 'received', 'propagated')}
    begin, sent = time.monotonic(), len(scene.sent)
    scene.run(4.0)
    seconds, sent = time.monotonic() - begin, len(scene.sent) - sent
    client.spin(timeout=1.5)
    for topic in ('heatmap', 'instances', 'overlay', 'detections_json'):
        found = stamps(scene, topic)
        assert set(found) <= set(scene.sent), topic  # the headers are the images'
        assert in_order(found), topic
        assert len(found) >= 0.75 * sent, (topic, len(found), sent)
    overlaps = []
    for message in client.got['instances']:
        assert message.header.frame_id == 'optical'
        labels, truth = pixels(message), scene.sent[stamp_ns(message.header)]
        assert set(np.unique(labels)) <= {0, 7}
        seen = labels == 7
        overlaps.append((seen & truth).sum() / (seen | truth).sum())
    assert np.mean(overlaps) >= 0.85, np.mean(overlaps)
    assert np.percentile(overlaps, 5) >= 0.6, np.percentile(overlaps, 5)
    hot = [pixels(m)[scene.sent[stamp_ns(m.header)]].mean() for m in client.got['heatmap']]
    assert np.mean(hot) > 0.85 * 240
    assert {row['id'] for m in client.got['detections_json'] for row in rows(m)} == {7}
    # The detections keep their own pace.
    done = client.count('processed') - before['processed']
    assert 0.6 * DETECTIONS * seconds <= done <= DETECTIONS * (seconds + 3), (done, seconds)
    assert client.count('propagated') > before['propagated']
    values = client.values()
    for key in ('detections_per_second', 'outputs_per_second', 'evidence_age_ms_p50'):
        assert float(values[key]) > 0, key
    assert float(values['evidence_age_ms_p95']) < 1000


def test_what_is_measured_comes_from_detections_only_and_in_order(scene):
    fresh(scene)
    scene.run(2.0)
    scene.client.spin(timeout=0.5)
    found = stamps(scene, 'score')
    assert in_order(found)
    assert 0 < len(found) < len(stamps(scene, 'heatmap'))
    for message in scene.client.got['score']:
        truth = scene.sent[stamp_ns(message.header)]
        assert ((pixels(message) > 0.5) ^ truth).sum() < 0.05 * truth.sum()


@pytest.mark.parametrize('size', [(242, 322), (200, 200), (240, 320)])
def test_every_output_has_the_size_of_its_own_image(scene, size):
    """The first size has the same small picture as the one before."""
    fresh(scene)
    scene.run(0.5)
    scene.set_size(*size)
    got = scene.client.got
    assert scene.until(lambda: sum(m.height == size[0] for m in got['instances']) > 5)
    for topic in ('heatmap', 'instances', 'overlay'):
        for message in got[topic]:
            truth = scene.sent[stamp_ns(message.header)]
            assert (message.height, message.width) == truth.shape, topic
        assert in_order(stamps(scene, topic))


@pytest.mark.parametrize('jump', [-3600, 7200, -0.3], ids=str)
def test_stamps_that_jump_cost_a_moment_and_never_an_order(scene, jump):
    fresh(scene)
    offset = getattr(scene, 'offset', 0)
    scene.run(0.6, offset)
    begun = set(scene.sent)
    scene.offset = offset + round(jump * 1e9)
    new = lambda: [s for s in stamps(scene, 'instances') if s not in begun]  # noqa: E731
    assert scene.until(lambda: len(new()) > 10, offset=scene.offset)
    for topic in ('heatmap', 'instances', 'overlay', 'detections_json', 'score'):
        found = stamps(scene, topic)
        assert len(set(found)) == len(found), topic
        assert sum(b < a for a, b in itertools.pairwise(found)) <= (jump <= -0.5), topic


def test_an_image_that_comes_twice_goes_out_once(scene):
    fresh(scene)
    offset = getattr(scene, 'offset', 0)
    for _ in range(40):
        stamp = time.time_ns() + offset
        for _ in range(2):
            scene.publish(stamp)
            scene.client.spin(timeout=0.02)
    scene.client.spin(timeout=0.5)
    for topic in ('heatmap', 'instances', 'overlay', 'detections_json'):
        assert len(stamps(scene, topic)) > 10
        assert in_order(stamps(scene, topic)), topic


def test_images_without_stamps_are_propagated_all_the_same(scene):
    fresh(scene)
    for _ in range(60):
        scene.publish(0)
        scene.client.spin(timeout=1 / FPS)
    assert len(scene.client.got['instances']) > 20
    scene.sent.pop(0)


def test_old_evidence_is_not_carried_on_when_detections_fail(scene):
    offset = getattr(scene, 'offset', 0)
    fresh(scene)
    assert scene.until(lambda: len(scene.client.got['instances']) > 10, offset=offset)
    scene.control.write_text('fail')
    begin = time.time_ns() + offset
    try:
        scene.run(3.5, offset)
        scene.client.spin(timeout=0.5)
        last = max(stamps(scene, 'instances'))
        assert last - begin < 3.2e9  # stale_after is 2 s
        assert 'no detection' in scene.process.text()
    finally:
        scene.control.write_text(str(LATENCY))
    fresh(scene)
    assert scene.until(lambda: len(scene.client.got['instances']) > 10, offset=offset)


def test_without_a_detect_rate_every_output_is_a_detection(scene):
    offset = getattr(scene, 'offset', 0)
    client = scene.client
    assert all(r.successful for r in client.set(detect_rate=0.0))
    scene.run(1.0, offset)
    fresh(scene)
    client.spin(timeout=1.5)
    before = {k: client.count(k) for k in ('processed', 'propagated')}
    scene.run(2.0, offset)
    client.spin(timeout=2.0)
    assert client.count('propagated') == before['propagated']
    assert 'outputs_per_second' not in client.values()
    done = client.count('processed') - before['processed']
    assert abs(done - len(client.got['instances'])) <= 1
    assert done > 10  # not held to the 5 Hz of before
    for message in client.got['instances']:
        truth = scene.sent[stamp_ns(message.header)]
        assert ((pixels(message) == 7) ^ truth).sum() < 0.05 * truth.sum()
    assert stamps(scene, 'score') == stamps(scene, 'instances')
    assert not client.set(detect_rate=-1.0)[0].successful
    assert client.set(detect_rate=DETECTIONS)[0].successful


def test_a_fast_detection_goes_out_itself(scene):
    """Where a detection is there before the next frame, its frame waits for it."""
    offset = getattr(scene, 'offset', 0)
    scene.control.write_text('0.002')
    try:
        assert scene.client.set(detect_rate=1000.0)[0].successful
        scene.run(0.3, offset)
        assert scene.client.trigger('reset').success  # the usual delay is measured anew
        scene.run(1.0, offset)
        fresh(scene)
        scene.run(2.0, offset)
        scene.client.spin(timeout=0.5)
        shown = stamps(scene, 'instances')
        assert in_order(shown)
        own = set(shown) & set(stamps(scene, 'score'))
        exact = 0
        for message in scene.client.got['instances']:
            truth = scene.sent[stamp_ns(message.header)]
            exact += ((pixels(message) == 7) ^ truth).sum() < 5
        assert own
        assert exact > 0.5 * len(shown), (exact, len(shown))
    finally:
        scene.control.write_text(str(LATENCY))
        scene.client.set(detect_rate=DETECTIONS)


class Sent:
    """Collects what would be sent to subscribers of everything but the overlay."""

    points_wanted = rows_wanted = True
    overlay = SimpleNamespace(wanted=False)

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []
        self.looks: list[int] = []
        self.state = SimpleNamespace(
            look=lambda header, *more: self.looks.append(header.stamp.sec)
        )

    def publish_maps(self, header, size, result, settings, info, shown, measured) -> None:
        self.log += [('maps', header.stamp.sec)] * shown + [('score', header.stamp.sec)] * measured

    def publish_objects(self, header, image, result, settings, places, points) -> None:
        self.log.append(('rows with metres' if places else 'rows', header.stamp.sec))
        self.publish_points(points)

    def publish_points(self, points) -> None:
        if points is not None:
            self.log.append(('points', points.header.stamp.sec))


def test_points_come_from_detections_only_also_from_those_overtaken():
    sent, faults = Sent(), []
    publisher = FramePublisher({'': sent}, lambda *a: None, lambda *a: faults.append(a))
    settings = Settings(depth='image', detect_rate=5.0)
    stream = CameraStream('', detect_rate=5.0)
    stream.camera_info = CameraInfo(
        height=48, width=64, k=[60.0, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1.0]
    )
    shown = np.zeros((48, 64, 3), np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40] = 1
    found = Result(
        heatmap=mask * 250,
        instances=mask.astype(np.uint16) * 7,
        boxes=np.array([[10, 10, 40, 30]], np.float32),
        confidences=np.array([0.9], np.float32),
        ids=np.array([7], np.int32),
    )

    def publish(second: int, age: float) -> None:
        message, depth = image(shown), image(np.full((48, 64), 2.0, np.float32), '32FC1')
        message.header.stamp.sec = depth.header.stamp.sec = second
        match = Match(second * 10**9)
        match.offer(depth, second * 10**9)
        frame = PendingFrame(message, time.monotonic(), match, (0, second * 10**9))
        publisher.publish(stream, frame, shown, found, settings, age)

    publish(1, 0.0)
    publish(3, 2.0)
    publish(2, 0.0)  # a detection that has been overtaken
    publish(2, 0.0)
    publish(3, 1.0)
    assert not faults
    assert sent.looks == [1, 2]  # what was moved from an earlier frame is no look
    assert sent.log == [
        ('maps', 1),
        ('score', 1),
        ('rows with metres', 1),
        ('points', 1),
        ('maps', 3),
        ('rows with metres', 3),
        ('score', 2),
        ('points', 2),
    ]
