# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip('rclpy')
from ood_perception.ros.camera_stream import CameraStream, Mailbox, rate


def cameras(*names: str) -> tuple[Mailbox, list[CameraStream]]:
    streams = [CameraStream(name) for name in names]
    return Mailbox(streams), streams


def test_newest_frame_wins_and_drops_are_counted():
    mailbox, (stream,) = cameras('front')
    for i in range(5):
        mailbox.put(stream, i)
    ((taken, frame),) = mailbox.take(4, 1.0)
    assert taken is stream
    assert frame.message == 4
    assert (stream.counters.received, stream.counters.dropped) == (5, 4)
    assert mailbox.take(4, 0.0) == []


def test_a_fast_camera_does_not_starve_slow_ones():
    mailbox, streams = cameras('a', 'b', 'c', 'd')
    served = dict.fromkeys('abcd', 0)
    for step in range(400):
        for i, stream in enumerate(streams):
            if step % (i + 1) == 0:  # a at full rate, d at a quarter of it
                mailbox.put(stream, step)
        for stream, _ in mailbox.take(1, 0.0):
            served[stream.name] += 1
    assert sum(served.values()) == 400
    assert min(served.values()) >= 0.8 * max(served.values())


def test_cameras_that_wait_together_come_as_one_batch():
    mailbox, streams = cameras('a', 'b', 'c')
    for stream in streams:
        mailbox.put(stream, 'x')
    assert [s.name for s, _ in mailbox.take(2, 1.0)] == ['a', 'b']
    mailbox.put(streams[0], 'y')
    assert [s.name for s, _ in mailbox.take(2, 1.0)] == ['c', 'a']


def test_a_rate_limit_delays_but_keeps_the_newest():
    mailbox, (stream,) = cameras('front')
    stream.max_rate = 20.0
    taken, end = [], time.monotonic() + 1.0
    while time.monotonic() < end:
        mailbox.put(stream, time.monotonic())
        taken += mailbox.take(1, 0.002)
    assert 2 <= len(taken) <= 21
    assert stream.counters.received == len(taken) + stream.counters.dropped + bool(stream.pending)


def test_put_and_wake_end_the_wait_of_the_worker():
    mailbox, (stream,) = cameras('front')
    got = []

    def work():
        while batch := mailbox.take(1, 30.0):
            got.extend(frame.message for _, frame in batch)

    thread = threading.Thread(target=work)
    thread.start()
    mailbox.put(stream, 'hello')
    end = time.monotonic() + 20
    while not got and time.monotonic() < end:
        time.sleep(0.01)
    mailbox.wake()
    thread.join(20)
    assert not thread.is_alive()
    assert got == ['hello']
    mailbox.put(stream, 'late')
    mailbox.clear()
    assert stream.pending is None


def test_statistics():
    stream = CameraStream('front')
    stream.measure({'score': 2.0, 'total': 10.0})
    stream.measure({'score': 4.0})
    assert stream.percentiles()['score'][0] == 3.0
    assert stream.percentiles()['total'] == (10.0, 10.0)
    now = time.monotonic()
    stream.arrivals.extend(now - 2 + i * 0.1 for i in range(21))
    assert rate(stream.arrivals) == pytest.approx(10.0, rel=0.01)
    stream.reset()
    assert rate(stream.arrivals) == 0
    assert stream.percentiles() == {}
