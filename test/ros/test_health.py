# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import time
from collections import deque

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from ood_perception.ros import fallback, health
from ood_perception.ros.camera_stream import CameraStream, Mailbox
from ood_perception.ros.fallback import Fallback, Step, steps
from ood_perception.ros.health import Health, Level, LoggingBridge, Reporter
from ood_perception.ros.settings import Settings
from ood_perception.ros.watchdog import Watchdog
from ood_perception.ros.worker import Worker

GPU = [Step('auto', 'cuda'), Step('eager', 'cuda'), Step('eager', 'cpu')]


@pytest.fixture
def lines() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def patient(lines) -> Health:
    return Health(lambda level, text: lines.append((level, text)))


# ---- health


def test_an_issue_stands_until_it_is_cleared_and_both_are_logged_once(patient, lines):
    for second in range(5):
        patient.warn('depth', f'no depth for {second} s', 'look at the topic', camera='front')
    assert patient.verdict('front') == (Level.WARN, 'no depth for 4 s -> look at the topic')
    assert patient.verdict() == (Level.OK, 'running')
    assert lines == [('warn', 'front: no depth for 0 s -> look at the topic')]
    patient.clear('depth', 'front')
    patient.clear('depth', 'front')
    assert patient.verdict('front') == (Level.OK, 'running')
    assert lines[1:] == [('info', 'front: over: no depth for 4 s')]


def test_errors_come_before_warnings_and_the_last_one_is_remembered(patient):
    patient.warn('a', 'a warning')
    patient.error('b', 'an error')
    assert patient.verdict() == (Level.ERROR, 'an error; a warning')
    patient.clear('b')
    assert patient.verdict() == (Level.WARN, 'a warning')
    assert patient.last_error() == 'an error'
    patient.forget()
    assert patient.last_error() == ''
    assert patient.verdict()[0] == Level.OK


def test_an_event_is_over_by_itself(patient, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(health.time, 'monotonic', lambda: now)
    patient.error('image', 'bad image', camera='', lasts=5.0)
    assert patient.verdict('')[0] == Level.ERROR
    now += 4.9
    assert patient.issues('')
    now += 0.2
    assert patient.verdict('') == (Level.OK, 'running')
    assert not patient.issues('')
    assert patient.last_error('') == 'bad image'


def test_an_issue_that_stands_is_repeated_in_the_log_now_and_then(patient, lines, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(health.time, 'monotonic', lambda: now)
    for _ in range(650):
        patient.warn('x', 'still so')
        now += 1.0
    assert len(lines) == 3


# ---- fallback


def test_steps_get_simpler_and_none_comes_twice():
    assert steps('auto', 'auto', True) == [
        Step('auto', 'auto'),
        Step('eager', 'auto'),
        Step('eager', 'cpu'),
    ]
    assert steps('eager', 'cpu', False) == [Step('eager', 'cpu')]
    assert steps('openvino', 'cpu', False) == [Step('openvino', 'cpu'), Step('eager', 'cpu')]


def failing(chain: Fallback, start: float, seconds: float, rate: float = 10.0) -> float:
    for i in range(int(seconds * rate) + 1):
        chain.failed(start + i / rate, 'lost')
    return start + seconds


@pytest.mark.parametrize('rate', [5.0, 30.0, 1000.0])
def test_a_fault_of_100_ms_is_passing(rate):
    chain = Fallback(GPU)
    now = failing(chain, 10.0, 0.1, rate)
    assert chain.due(now) is None
    chain.succeeded(now)
    now = failing(chain, now + 5, 0.1, rate)
    assert chain.due(now) is None


def test_a_slow_camera_needs_three_failures():
    chain = Fallback(GPU)
    for now in (0.0, 5.0):
        chain.failed(now, 'lost')
        assert chain.due(now) is None
    chain.failed(10.0, 'lost')
    assert chain.due(10.0) == 1


def test_down_the_chain_and_back_up():
    chain = Fallback(GPU)
    now = failing(chain, 0.0, 1.5)
    assert chain.due(now) == 1
    assert chain.adopted(1, now) == fallback.CLIMB[0]
    assert chain.reason == 'lost'
    assert chain.due(now + 1) is None
    now = failing(chain, now + 2, 1.5)
    assert chain.due(now) == 2
    chain.adopted(2, now)
    chain.succeeded(now + 1)
    assert chain.due(now + fallback.CLIMB[0] - 1) is None
    assert chain.due(now + fallback.CLIMB[0]) == 0
    chain.adopted(0, now + fallback.CLIMB[0])
    assert (chain.current, chain.reason) == (0, '')
    assert chain.due(now + 10_000) is None


def test_the_climb_waits_longer_each_time_it_fails():
    chain, now, pauses = Fallback(GPU), 0.0, []
    for _ in range(8):
        now = failing(chain, now, 1.5)
        pauses.append(chain.adopted(chain.due(now), now))
        now += pauses[-1]
        chain.adopted(chain.due(now), now)
    assert pauses[:3] == [30.0, 60.0, 120.0]
    assert pauses[-1] == fallback.CLIMB[1]
    # a day of work makes it as good as new
    chain.succeeded(now + 86_400)
    now = failing(chain, now + 86_400, 1.5)
    assert chain.adopted(chain.due(now), now) == 30.0


def test_a_refused_climb_is_tried_again_later():
    chain = Fallback(GPU)
    chain.adopted(1, failing(chain, 0.0, 1.5))
    assert chain.refused(0, 40.0, 'no memory') == 60.0
    assert chain.due(99.0) is None
    assert chain.due(100.0) == 0
    assert chain.current == 1


def test_what_cannot_be_loaded_is_passed_over_and_retried_with_backoff():
    chain = Fallback(GPU)
    now = failing(chain, 0.0, 1.5)
    assert chain.due(now) == 1
    assert chain.refused(1, now, 'no memory') == 0.0
    assert chain.due(now) == 2
    pauses = []
    for _ in range(8):
        pauses.append(chain.refused(2, now, 'no memory'))
        assert chain.due(now + pauses[-1] / 2) is None
        now += pauses[-1]
        assert chain.due(now) == 1
        chain.refused(1, now, 'no memory')
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    chain.succeeded(now)  # the device came back
    assert chain.due(now + 1) is None


def test_the_last_step_is_built_afresh():
    chain = Fallback([Step('eager', 'cpu')])
    now = failing(chain, 0.0, 1.5)
    assert chain.due(now) == 0
    assert chain.refused(0, now, 'broken') == 1.0
    assert chain.due(now + 0.5) is None
    assert chain.due(now + 1.0) == 0
    chain.adopted(0, now + 1.0)
    assert chain.due(now + 2.0) is None


def test_a_pipeline_that_never_returns_counts_as_lost():
    chain = Fallback(GPU)
    chain.lost(100.0, 'hung')
    assert chain.due(100.0) == 1


# ---- watchdog


class Graph:
    """What the watchdog asks rclpy about other nodes."""

    def __init__(self, topics=(), twins=1):
        self.topics, self.twins = dict(topics), twins

    def get_name(self):
        return 'ood'

    def get_namespace(self):
        return '/'

    def get_fully_qualified_name(self):
        return '/ood'

    def get_node_names_and_namespaces(self):
        return [('ood', '/')] * self.twins + [('ood', '/other')]

    def get_topic_names_and_types(self):
        return [(name, [f'sensor_msgs/msg/{kind}']) for name, kind in self.topics.items()]

    def count_publishers(self, name):
        return int(name in self.topics)


class Listeners:
    def __init__(self, wanted):
        self.wanted = wanted

    def wants(self):
        return self.wanted


@pytest.fixture
def watched(patient, monkeypatch):
    """A camera, its worker (which is not started) and a clock that the test sets."""
    stream = CameraStream('front', subscribed_at=1000.0)
    worker = Worker(Mailbox([stream]), {'front': Listeners({'heatmap'})}, Settings(), patient)
    clock = [1000.0]
    monkeypatch.setattr(time, 'monotonic', lambda: clock[0])
    return Watchdog(patient), stream, worker, clock


def look(watched, graph=None, mismatch=''):
    dog, stream, worker, _ = watched
    dog.watch_camera(graph or Graph(), stream, worker, '/front/image_raw', mismatch)
    return dog.health.verdict('front')


def test_a_camera_at_a_fifth_of_a_hertz_does_not_flap(watched):
    _, stream, worker, clock = watched
    levels = []
    for second in range(120):
        clock[0] = 1000.0 + second
        if second % 5 == 0:
            worker.mailbox.put(stream, object())
            stream.pending = None
            stream.answered()
        levels.append(look(watched)[0])
    assert levels[3] == Level.WARN  # nobody can know yet
    assert set(levels[10:]) == {Level.OK}
    for second in range(120, 140):
        clock[0] = 1000.0 + second
        level, text = look(watched)
    assert level == Level.WARN
    assert 'no image on /front/image_raw for' in text


def test_a_fast_camera_that_stops_is_reported_after_stale_after(watched):
    _, stream, worker, clock = watched
    for i in range(30):
        clock[0] = 1000.0 + i / 10
        worker.mailbox.put(stream, object())
        stream.pending = None
        stream.answered()
    clock[0] += 1.9
    assert look(watched)[0] == Level.OK
    clock[0] += 0.2
    assert look(watched)[0] == Level.WARN


def test_silence_is_said_once_with_the_topics_that_exist(watched, lines):
    graph = Graph({'/cam/image_raw': 'Image', '/cam/image/compressed': 'CompressedImage',
                   '/ood/heatmap': 'Image', '/scan': 'LaserScan'})  # fmt: skip
    for second in range(10):
        watched[3][0] = 1000.0 + second
        assert look(watched, graph) == (Level.WARN, 'no image on /front/image_raw yet')
    (line,) = [text for _, text in lines]
    assert line == (
        'no image on /front/image_raw yet: nobody publishes it; image topics that exist: '
        '/cam/image_raw (Image), /cam/image/compressed (CompressedImage)'
    )


def test_images_without_results_are_an_error_only_where_somebody_wants_them(watched):
    _, stream, worker, clock = watched
    worker.mailbox.put(stream, object())
    clock[0] += 2.5
    worker.mailbox.put(stream, object())
    level, text = look(watched)
    assert level == Level.ERROR
    assert 'no result for 2 s' in text
    worker.outputs['front'].wanted = set()
    assert look(watched)[0] == Level.OK
    worker.outputs['front'].wanted = {'heatmap'}
    stream.answered()
    assert look(watched)[0] == Level.OK


def test_a_slow_network_is_no_error(watched):
    _, stream, worker, clock = watched
    for _ in range(3):
        stream.measure({'total': 4000.0})
    worker.mailbox.put(stream, object())
    clock[0] += 5.0
    worker.mailbox.put(stream, object())
    assert look(watched)[0] == Level.OK
    clock[0] += 8.0
    worker.mailbox.put(stream, object())
    assert look(watched)[0] == Level.ERROR


@pytest.mark.parametrize(
    ('dropped', 'limit', 'level'),
    [(40, 0.0, Level.OK), (60, 0.0, Level.WARN), (60, 5.0, Level.OK)],
    ids=['some', 'most', 'as asked'],
)
def test_most_frames_dropped_is_a_warning_unless_asked_for(watched, dropped, limit, level):
    _, stream, _, clock = watched
    stream.max_rate = limit
    for _ in range(10):
        clock[0] += 1.0
        stream.last_received = clock[0]
        look(watched)
        stream.counters.received += 10
        stream.counters.dropped += dropped // 10
    assert look(watched)[0] == level
    if level == Level.WARN:
        stream.counters = type(stream.counters)()
        assert look(watched)[0] == Level.OK


def test_active_without_a_pipeline_is_an_error(watched):
    dog, _, worker, _ = watched
    dog.watch_worker(worker, active=True)
    assert dog.health.verdict()[0] == Level.ERROR
    assert 'without a pipeline' in dog.health.verdict()[1]
    dog.watch_worker(worker, active=False)
    assert dog.health.verdict()[0] == Level.OK


def test_a_twin_is_told_and_another_namespace_is_none(patient):
    dog = Watchdog(patient)
    dog.watch_node(Graph(twins=2))
    assert patient.verdict()[0] == Level.WARN
    dog.watch_node(Graph(twins=1))
    assert patient.verdict()[0] == Level.OK


# ---- log


class Logger:
    def __init__(self):
        self.lines = []

    def info(self, text):
        self.lines.append(('info', text))

    def warn(self, text):
        self.lines.append(('warn', text))

    def error(self, text):
        self.lines.append(('error', text))


def test_the_packages_own_logging_reaches_the_nodes_log():
    logger = Logger()
    bridge = LoggingBridge(Reporter(logger))
    bridge.install()
    try:
        logging.getLogger('ood_perception.engines').info('engine %s chosen', 'openvino')
        logging.getLogger('ood_perception.scores').warning('100 %')
        logging.getLogger('another').error('not ours')
        logging.getLogger('ood_perception').debug('not shown')
    finally:
        bridge.remove()
    logging.getLogger('ood_perception').error('afterwards')
    assert logger.lines == [('info', 'engine openvino chosen'), ('warn', '100 %')]


def test_usual_values_of_a_camera():
    stream = CameraStream('front')
    assert (stream.usual_interval(), stream.typical_delay()) == (0.0, 0.0)
    stream.arrivals = deque([0.0, 0.1, 0.2, 60.0, 60.1, 60.2])
    assert stream.usual_interval() == pytest.approx(0.1)
