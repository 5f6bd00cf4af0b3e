# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""While a batch is computed, the last one is published and the next one decoded."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('rclpy', reason='needs rclpy')
from node_helpers import image, picture

from ood_perception.in_flight import Row
from ood_perception.result import Result
from ood_perception.ros.camera_stream import CameraStream, Mailbox
from ood_perception.ros.health import Health
from ood_perception.ros.loading import leaves_processors
from ood_perception.ros.settings import Settings
from ood_perception.ros.worker import Worker
from ood_perception.scores import create_score
from ood_perception.side_thread import SideThread

PATIENCE = 10.0


class Engine:
    name, live = 'fake', False


class Pipeline:
    """A pipeline that computes when it is allowed to and says at which frame it is."""

    device = torch.device('cpu')
    engine = Engine()
    score = create_score('llr')

    def __init__(self):
        self.begun, self.go, self.seen = threading.Semaphore(0), threading.Semaphore(0), []

    def network_size(self, height, width):
        return height, width

    def warm_up(self, *rest, **named):
        pass

    def __call__(self, images, names, wants, stamps):
        self.seen += [int(image[0, 0, 0]) for image in images]
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE)
        return [Result(timings={}) for _ in images]

    def close(self):
        pass


class Outputs:
    """Stands for a subscriber that wants heatmaps."""

    @staticmethod
    def wants():
        return {'heatmap'}


@pytest.fixture
def worker(ros):
    stream = CameraStream('front')
    pipeline = Pipeline()
    said = []
    worker = Worker(
        Mailbox([stream]),
        {'front': Outputs()},
        Settings(),
        Health(lambda level, text: said.append(text)),
        build=lambda step: pipeline,
    )
    worker.said, worker.leaves_processors = said, lambda _: True
    worker.sent, worker.sending = [], threading.Semaphore(1000)

    def publish(stream, frame, image, result, settings):
        assert worker.sending.acquire(timeout=PATIENCE)
        worker.sent.append(int(image[0, 0, 0]))

    worker.publisher.publish = publish
    worker.start()
    until(lambda: worker.pipeline is pipeline)
    worker.stream = stream
    yield worker
    for _ in range(100):
        pipeline.go.release()
        worker.sending.release()
    assert worker.stop()


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def put(worker, grey: int) -> None:
    frame = picture(48, 64)
    frame[:] = grey
    message = image(frame)
    message.header.stamp.sec = grey
    worker.mailbox.put(worker.stream, message)


def test_the_last_batch_is_sent_and_the_next_decoded_while_one_is_computed(worker):
    pipeline = worker.pipeline
    put(worker, 1)
    assert pipeline.begun.acquire(timeout=PATIENCE)
    pipeline.go.release()
    put(worker, 2)
    assert pipeline.begun.acquire(timeout=PATIENCE)
    until(lambda: worker.sent == [1])
    worker._computing.clear()
    put(worker, 3)
    pipeline.go.release()
    assert pipeline.begun.acquire(timeout=PATIENCE)
    put(worker, 4)
    until(lambda: worker.stream.pending is None)  # taken, though the third is computed still
    assert pipeline.seen == [1, 2, 3]
    until(lambda: worker.sent == [1, 2])
    for _ in range(2):
        pipeline.go.release()
    until(lambda: worker.sent == [1, 2, 3, 4])
    assert worker.stream.counters.processed == 4
    assert [line for line in worker.said if not line.startswith('ready')] == []


def test_a_slow_subscriber_holds_the_next_frames_and_none_is_sent_out_of_order(worker):
    pipeline = worker.pipeline
    while worker.sending.acquire(blocking=False):
        pass
    for grey in (1, 2, 3):
        put(worker, grey)
        assert pipeline.begun.acquire(timeout=PATIENCE)
        pipeline.go.release()
        if grey == 2:
            break
    put(worker, 3)
    assert not pipeline.begun.acquire(timeout=0.3)  # two wait to be sent: no third one
    assert worker.sent == []
    for _ in range(9):
        worker.sending.release()
    assert pipeline.begun.acquire(timeout=PATIENCE)
    pipeline.go.release()
    until(lambda: worker.sent == [1, 2, 3])


def test_a_job_sees_what_the_last_frame_left_behind(worker):
    pipeline = worker.pipeline
    put(worker, 1)
    assert pipeline.begun.acquire(timeout=PATIENCE)
    pipeline.go.release()
    assert worker.call(lambda: list(worker.sent)) == [1]


def test_disabled_meanwhile_a_frame_that_was_decoded_is_not_computed(worker):
    pipeline = worker.pipeline
    put(worker, 1)
    assert pipeline.begun.acquire(timeout=PATIENCE)
    put(worker, 2)
    until(lambda: worker.stream.pending is None)
    worker.enabled = False
    pipeline.go.release()
    until(lambda: worker.stream.counters.discarded == 1)
    assert pipeline.seen == [1]


def test_a_side_thread_keeps_the_order_and_hands_errors_over():
    thread, seen = SideThread('test'), []
    futures = [thread.submit(seen.append, i) for i in range(50)]
    failed = thread.submit(lambda: 1 / 0)
    thread.close()
    assert seen == list(range(50))
    assert all(future.done() for future in futures)
    assert isinstance(failed.exception(), ZeroDivisionError)


@pytest.mark.parametrize(
    ('threads', 'device', 'wanted'), [(1, 'cpu', True), (2, 'cpu', False), (2, 'cuda', True)]
)
def test_three_things_at_once_only_where_a_processor_is_free(monkeypatch, threads, device, wanted):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    monkeypatch.setattr('os.sched_getaffinity', lambda _: range(2))
    assert leaves_processors(SimpleNamespace(device=torch.device(device))) is wanted


def test_where_no_processor_is_free_a_batch_is_sent_before_the_next_is_taken(worker):
    pipeline = worker.pipeline
    assert worker.stop()
    pipeline.seen.clear()
    worker.leaves_processors = lambda _: False
    worker.start()
    until(lambda: worker.pipeline is pipeline)
    put(worker, 1)
    assert pipeline.begun.acquire(timeout=PATIENCE)
    put(worker, 2)
    time.sleep(0.1)
    assert worker.stream.pending is not None
    pipeline.go.release()
    assert pipeline.begun.acquire(timeout=PATIENCE)
    assert worker.sent == [1]


class TwoLanes(Pipeline):
    """Begins what is submitted, and finishes each when it is allowed to."""

    def __init__(self):
        super().__init__()
        self.row, self.most, self.inside = Row(2), 0, 0
        self.lock = threading.Lock()

    def submit(self, images, names, **options):
        return self.row.submit(lambda turn: self._one(turn, images, names, **options))

    def _one(self, turn, images, names, **options):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        results = self(images, names, **options)
        with self.lock:
            self.inside -= 1
        turn.wait()
        return results


def test_two_frames_in_flight_are_sent_in_order_and_a_third_waits(worker):
    assert worker.stop()
    pipeline = TwoLanes()
    worker._build, worker.settings = lambda step: pipeline, Settings(frames_in_flight=2)
    worker.start()
    until(lambda: worker.pipeline is pipeline)
    for grey in (1, 2):
        put(worker, grey)
        assert pipeline.begun.acquire(timeout=PATIENCE)
    put(worker, 3)
    time.sleep(0.1)
    assert worker.stream.pending is not None  # the newest is taken when there is room
    assert (pipeline.most, worker.sent) == (2, [])
    for grey in (4, 5, 6):
        pipeline.go.release()
        assert pipeline.begun.acquire(timeout=PATIENCE)
        put(worker, grey)
    for _ in range(8):
        pipeline.go.release()
    until(lambda: worker.stream.pending is None and worker.sent == sorted(pipeline.seen))
    assert pipeline.most == 2
    # a job comes when nothing is under way
    assert worker.call(lambda: pipeline.inside) == 0
    worker.pipeline = None


def test_a_frame_that_fails_in_flight_is_counted_and_the_next_comes(worker):
    assert worker.stop()
    pipeline = TwoLanes()

    def fail(images, names, wants, stamps):
        if int(images[0][0, 0, 0]) == 1:
            raise RuntimeError('lost')
        return [Result(timings={})]

    pipeline._one = lambda turn, *rest, **options: fail(*rest, **options)
    worker._build, worker.settings = lambda step: pipeline, Settings(frames_in_flight=2)
    worker.start()
    until(lambda: worker.pipeline is pipeline)
    for grey in (1, 2):
        put(worker, grey)
        until(lambda: worker.stream.pending is None)
    until(lambda: worker.sent == [2])
    assert worker.stream.counters.failed == 1
    assert any('pipeline: ' in text and 'lost' in text for text in worker.said), worker.said
    worker.pipeline = None
