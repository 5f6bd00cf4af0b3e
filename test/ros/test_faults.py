# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import array
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from node_helpers import Client, NodeProcess, compressed, image, picture, process
from node_helpers import write_profile as tiny
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from ood_perception.frames.decode import ENCODINGS
from ood_perception.result import Result
from ood_perception.ros.camera_stream import CameraStream, Mailbox, PendingFrame
from ood_perception.ros.fallback import Fallback, Step
from ood_perception.ros.health import Health
from ood_perception.ros.settings import Settings
from ood_perception.ros.worker import Worker

RAW, JPEG, DEPTH = '/front/image_raw', '/rear/image_raw/compressed', '/front/depth/image_raw'


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    """A client of a node with a raw and a compressed camera and depth."""
    folder = tmp_path_factory.mktemp('faults')
    name = f'faults_{os.getpid()}'
    process = NodeProcess(
        folder,
        name,
        profile=str(tiny(folder)),
        cameras=['front', 'rear'],
        depth='image',
        **{'rear.image_transport': 'compressed'},
    )
    client = Client(rclpy.create_node(f'storm_{os.getpid()}'), name)
    client.process, client.stamp = process, 100
    client.wait_active(process)
    client.listen('heatmap', 'overlay', 'detections_json', camera='front')
    client.listen('heatmap', camera='rear')
    yield client
    code = process.stop()
    client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


def good_frame_passes(client, camera: str = 'front', stamp: int = 0) -> None:
    topic, frame = (RAW, image(picture())) if camera == 'front' else (JPEG, compressed(picture()))
    frame.header.stamp.sec = stamp or client.stamp
    frame.header.frame_id = f'good {frame.header.stamp.sec}'
    got = client.got[f'{camera}/heatmap']
    got.clear()
    mark = frame.header.frame_id
    assert client.feed(topic, frame, lambda: any(m.header.frame_id == mark for m in got), 60)
    client.stamp = frame.header.stamp.sec + 1


def said(client, text: str, part: str = 'front', timeout: float = 15.0) -> bool:
    """Whether the log and the diagnostics both say `text`."""
    return client.spin(
        lambda: (
            text in client.process.text()
            and text in client.values(part).get('last_error', '') + str(client.statuses.get(part))
        ),
        timeout,
    )


def corrupt(rng: np.random.Generator, kind: int):
    """A topic and a random message for it that breaks one of the promises of its type."""
    u32 = int(rng.choice([0, 1, 2, 17, 4096, 1 << 16, (1 << 32) - 1, rng.integers(0, 1 << 32)]))
    frame = image(picture(32, 40, seed=int(rng.integers(9))), str(rng.choice(ENCODINGS)))
    frame.header.stamp.sec = int(rng.integers(-(1 << 31), 1 << 31))
    frame.header.stamp.nanosec = int(rng.integers(0, 1 << 32))
    if kind == 0:
        setattr(frame, str(rng.choice(['height', 'width', 'step'])), u32)
    elif kind == 1:
        frame.data = frame.data[: int(rng.integers(0, len(frame.data)))]
    elif kind == 2:
        frame.encoding = bytes(rng.integers(32, 127, int(rng.integers(0, 300)))).decode()
    elif kind == 3:
        frame.height, frame.width, frame.step = (int(v) for v in rng.integers(0, 99, 3))
    elif kind == 4:
        noise = rng.bytes(32 * 40 * 4)
        frame.encoding, frame.step = '32FC1', 160
        frame.data = array.array('B', noise)
    elif kind == 5:
        file = compressed(picture(32, 40), str(rng.choice(['.jpg', '.png'])))
        data = np.frombuffer(file.data, np.uint8).copy()
        data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
        file.data = array.array('B', data[: int(rng.integers(0, len(data) + 1))].tobytes())
        file.header.stamp.sec = frame.header.stamp.sec
        return JPEG, file
    elif kind == 6:
        frame.encoding = str(rng.choice(['32FC1', '16UC1', 'rgb8']))
        return DEPTH, frame
    else:
        info = CameraInfo(height=u32, width=7)
        info.k = [float(v) for v in rng.choice([0.0, np.nan, np.inf, -1.0, 1e300], 9)]
        return '/front/camera_info', info
    return RAW, frame


def test_a_storm_of_corrupt_messages_then_a_good_frame(client):
    good_frame_passes(client)
    rng = np.random.default_rng(7)
    sent = 0

    def refused() -> int:
        return client.count('bad', 'front') + client.count('bad', 'rear')

    # The newest frame wins, so a busy node meets only some of them: go on until it met enough.
    while sent < 1000 or (refused() < 100 and sent < 20_000):
        topic, message = corrupt(rng, sent % 8)
        client.publish(topic, message)
        sent += 1
        if sent % 4 == 0:
            client.spin(timeout=0.004)
    good_frame_passes(client, 'front')
    good_frame_passes(client, 'rear')
    assert client.process.alive
    assert refused() >= 100
    for name in ('heatmap', 'overlay'):
        assert client.got[f'front/{name}']
    # throttled: a storm of a thousand is no thousand lines
    assert len(client.process.text().splitlines()) < 400


def nan_image() -> Image:
    return image(np.full((64, 64), np.nan, np.float32), '32FC1')


def cut_jpeg() -> CompressedImage:
    file = compressed(picture(200, 300))
    file.data = file.data[: len(file.data) // 2]
    return file


def huge() -> Image:
    """8000x6000 as a driver with a wrong calibration would send it."""
    return image(np.zeros((6000, 8000), np.uint8), 'mono8')


def small_step() -> Image:
    frame = image(picture())
    frame.step = 5
    return frame


def truncated() -> Image:
    frame = image(picture())
    frame.data = frame.data[:-1]
    return frame


@pytest.mark.parametrize(
    ('make', 'camera', 'text'),
    [
        (nan_image, 'front', 'without one finite value'),
        (cut_jpeg, 'rear', 'JPEG is cut off'),
        (huge, 'front', 'image of 8000x6000 has more than 16 megapixels'),
        (lambda: image(np.zeros((1, 1, 3), np.uint8)), 'front', 'image of 1x1'),
        (lambda: Image(encoding='rgb8'), 'front', 'image of 0x0'),
        (small_step, 'front', 'smaller than a row'),
        (truncated, 'front', 'truncated'),
        (lambda: image(picture(), 'holo8'), 'front', "unknown encoding 'holo8'"),
    ],
    ids=['nan', 'cut', 'huge', '1x1', '0x0', 'step', 'truncated', 'encoding'],
)
def test_a_bad_image_is_reported_and_the_next_good_one_processed(client, make, camera, text):
    topic = RAW if camera == 'front' else JPEG
    bad = client.count('bad', camera)
    message = make()

    def counted() -> bool:
        client.publish(topic, message)
        return client.count('bad', camera) > bad

    assert client.spin(counted, 20)
    # Lines of one kind are throttled: it is said again a little later.
    client.spin(lambda: counted() and said(client, text, camera, 0.0), 20)
    assert said(client, text, camera)
    good_frame_passes(client, camera)


def test_stamps_that_are_zero_or_go_back(client):
    assert client.trigger('reset').success  # the storm's stamps were of many clocks
    good_frame_passes(client)
    client.spin(timeout=1.2)
    jumps = client.count('stamp_jumps', 'front')
    good_frame_passes(client, stamp=5)
    assert client.spin(lambda: client.count('stamp_jumps', 'front') == jumps + 1, 10)
    assert 'stamp went back' in client.process.text()
    frame = image(picture())
    client.got['front/heatmap'].clear()
    zero = lambda: any(m.header.stamp.sec == 0 for m in client.got['front/heatmap'])  # noqa: E731
    assert client.feed(RAW, frame, zero, step=0)
    assert 'no stamp' in client.process.text()


def test_a_topic_of_the_wrong_type_is_named(client):
    client.forget(RAW, Image)
    client.publish(RAW, CompressedImage())
    remedy = f'set image_transport:=compressed and remap front/image_raw/compressed:={RAW}'
    assert client.spin(lambda: remedy in client.statuses['front']['message'], 20)
    assert 'has type sensor_msgs/msg/CompressedImage' in client.process.text()
    client.forget(RAW, CompressedImage)
    client.publish(RAW, PointCloud2())
    assert client.spin(lambda: 'PointCloud2' in client.statuses['front']['message'], 20)
    client.forget(RAW, PointCloud2)
    good_frame_passes(client)
    frame = stamped(client.stamp)
    # a warning stays: depth is asked for and none comes
    assert client.feed(RAW, frame, lambda: client.statuses['front']['level'] == b'\x01', 20)
    assert 'depth' in client.statuses['front']['message']
    client.stamp = frame.header.stamp.sec + 1


def test_a_camera_that_dies_is_reported_and_comes_back(client):
    good_frame_passes(client)
    client.set(stale_after=0.5)
    client.forget(RAW, Image)
    rear = compressed(picture())
    rear.header.stamp.sec = 10_000
    assert client.feed(
        JPEG,
        rear,
        lambda: 'no image on /front/image_raw for' in client.statuses['front']['message'],
    )
    assert client.statuses['front']['level'] == b'\x01'
    client.got['rear/heatmap'].clear()
    assert client.feed(JPEG, rear, lambda: bool(client.got['rear/heatmap']))
    good_frame_passes(client)
    client.set(stale_after=2.0)


def test_nonsense_for_services_and_parameters(client):
    assert client.trigger('reset').success
    assert not client.set_bool('learn_normal', True).success
    (refused,) = client.set(overlay_colormap='x' * 5000)
    assert not refused.successful
    (refused,) = client.set(max_rate=float('inf'))
    assert not refused.successful
    good_frame_passes(client)


class Outputs:
    """Stands for subscribers that want everything; collects what would be sent."""

    class _Topic:
        wanted = False

        def look(self, *rest):
            pass

    overlay = state = _Topic()
    points_wanted = rows_wanted = False

    def __init__(self):
        self.sent: list[Result] = []

    def wants(self):
        return {'heatmap'}

    def publish_maps(self, header, size, result, *rest):
        self.sent.append(result)

    def publish_objects(self, *rest):
        pass


class Failing:
    """A pipeline whose device gives up under conditions that the test sets."""

    device = torch.device('cpu')
    engine = SimpleNamespace(name='eager', live=True)
    score = SimpleNamespace(learns=False)

    def __init__(self, error: Exception, fails):
        self.error, self.fails, self.calls = error, fails, []

    def __call__(self, frames, streams, wants, stamps):
        self.calls.append(list(streams))
        if self.fails(streams):
            raise self.error
        return [Result(heatmap=np.zeros(f.shape[:2], np.uint8)) for f in frames]

    def reset(self, stream=None):
        pass

    def network_size(self, height, width):
        return height, width

    def warm_up(self, sizes, batch, wait=True):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def worker(ros):
    streams = [CameraStream(name) for name in 'abc']
    outputs = {s.name: Outputs() for s in streams}
    lines: list[str] = []
    health = Health(lambda level, text: lines.append(text))
    worker = Worker(Mailbox(streams), outputs, Settings(), health)
    worker.lines = lines
    return worker


def stamped(second: int = 1) -> Image:
    frame = image(picture())
    frame.header.stamp.sec = second
    return frame


def batch(worker):
    return [(s, PendingFrame(stamped(), 0.0)) for s in worker.mailbox.streams]


def test_a_batch_that_is_refused_as_a_whole_is_tried_frame_by_frame(worker):
    error = torch.cuda.OutOfMemoryError('CUDA out of memory')
    worker.pipeline = Failing(error, lambda streams: len(streams) > 1)
    process(worker, batch(worker))
    assert [len(outputs.sent) for outputs in worker.outputs.values()] == [1, 1, 1]
    (line,) = [text for text in worker.lines if 'batch of 3 frames failed' in text]
    assert 'out of memory' in line


def test_one_camera_that_breaks_the_pipeline_harms_only_itself(worker):
    worker.pipeline = Failing(RuntimeError('engine'), lambda streams: 'b' in streams)
    process(worker, batch(worker))
    assert [len(outputs.sent) for outputs in worker.outputs.values()] == [1, 0, 1]
    broken = worker.mailbox.streams[1]
    assert broken.counters.failed == 1
    assert 'engine' in worker.health.last_error('b')
    assert worker.fallback.failures == 0  # another camera's frame has gone through since


def test_failing_to_publish_one_frame_does_not_lose_the_others(worker):
    worker.pipeline = Failing(RuntimeError(), lambda streams: False)

    def fail(*args):
        raise OSError('middleware')

    worker.outputs['a'].publish_maps = fail
    process(worker, batch(worker))
    assert [len(outputs.sent) for outputs in worker.outputs.values()] == [0, 1, 1]
    assert 'middleware' in worker.health.last_error('a')


def test_the_worker_thread_survives_anything_and_stops(worker):
    lines = worker.lines
    pipeline = Failing(RuntimeError(), lambda streams: False)
    worker = Worker(
        worker.mailbox,
        worker.outputs,
        worker.settings,
        worker.health,
        lambda step: pipeline,
        Fallback([Step('eager', 'cpu')]),
    )
    done = threading.Event()
    calls = []

    def wants():
        calls.append(1)
        if len(calls) == 1:
            raise KeyError('nobody thought of this')
        done.set()
        return {'heatmap'}

    worker.outputs['a'].wants = wants
    worker.start()
    stream = worker.mailbox.streams[0]
    for _ in range(200):
        worker.mailbox.put(stream, stamped())
        if done.wait(0.05):
            break
    assert done.is_set()
    assert worker.stop(20)
    assert pipeline.closed
    assert 'nobody thought of this' in lines[0]


def test_a_gap_in_time_resets_the_streams_past_only_when_it_goes_back(worker):
    worker.pipeline = Failing(RuntimeError(), lambda streams: False)
    resets = []
    worker.pipeline.reset = resets.append
    for second in (10, 11, 11, 500, 3):
        process(worker, [(worker.mailbox.streams[2], PendingFrame(stamped(second), 0.0))])
    assert resets == ['c']
