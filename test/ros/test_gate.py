# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The gate for planners and the example that brakes by it.

Three real processes over DDS: camera (here), node, brake. What is measured is what a vehicle
feels: time to stop, hold, release, false stops.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from moving_scene import start, texture
from node_helpers import PATIENCE, ROOT, Client, NodeProcess, image
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, Float32

from ood_perception.result import Result
from ood_perception.ros.gate import LOOKS, Gate, in_zone, why_blind
from ood_perception.ros.health import Health, Level
from ood_perception.ros.settings import Settings

PERIOD, DETECTION = 0.2, 0.03
"""Seconds from detection to detection, and that one takes."""
LOWER_HALF = '0,0.5 1,0.5 1,1 0,1'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


# ---- what follows from looks --------------------------------------------------------------


def test_looks_in_a_row_stop_and_several_release():
    gate = Gate()

    def look(what: str, at: float) -> None:
        gate.look(what, at, 2)

    def level(now: float, blind: str = '') -> Level:
        return gate.verdict(now, 1.0, 0.5, blind)[0]

    assert level(0.0) == Level.ERROR  # nothing looked at yet
    for at in (-0.2, -0.1):
        look('', at)
        assert level(at) == Level.ERROR
    look('', 0.0)
    assert level(0.0) == Level.OK
    look('object 7', 0.1)
    assert level(0.1) == Level.OK  # once is no alarm yet
    look('', 0.15)
    look('object 7', 0.2)
    assert level(0.2) == Level.OK  # nor is twice with a clear look between
    look('object 7', 0.3)
    assert level(0.3) == Level.WARN
    for at in np.arange(0.4, 0.8, 0.1):  # not seen, but not long enough
        look('', at)
        assert level(at) == Level.WARN
    look('object 8', 0.8)  # one look keeps what two have begun
    for at in np.arange(0.9, 1.75, 0.1):
        look('', at)
        assert level(at) == Level.WARN
    look('', 1.85)
    assert level(1.85) == Level.OK
    assert level(2.3) == Level.OK
    assert level(2.4) == Level.ERROR  # the newest look is too old
    look('', 2.5)
    assert level(2.5) == Level.ERROR  # one look is not enough after that
    look('object 9', 2.55)
    assert level(2.55) == Level.WARN  # what was not clear needs no second one
    assert level(2.55, 'disabled') == Level.ERROR


def test_an_object_that_was_seen_before_blindness_needs_looks_to_go():
    gate = Gate()
    gate.look('object 7', 0.0, 1)
    assert gate.verdict(5.0, 1.0, 0.5, '')[0] == Level.ERROR
    found = []
    for number in range(LOOKS):
        gate.look('', 5.0 + number / 10, 1)
        found.append(gate.verdict(5.0 + number / 10, 1.0, 0.5, '')[0])
    assert found == [Level.WARN] * (LOOKS - 1) + [Level.OK]


def seen(**changes) -> Result:
    """One object of 20x20 px at the lower edge, as it comes out of the pipeline."""
    instances = np.zeros((100, 200), np.uint16)
    instances[80:, 90:110] = 7
    values = {
        'boxes': np.array([[90, 80, 110, 100]], np.float32),
        'ids': np.array([7], np.int32),
        'areas': np.array([400], np.int32),
        'surroundings': np.array([1], np.uint8),
        'instances': instances,
    }
    return Result(**{**values, **changes})


@pytest.mark.parametrize(
    ('settings', 'counts'),
    [
        ({}, True),
        ({'gate_area': 401}, False),
        ({'gate_zone': '0,0 1,0 1,0.79 0,0.79'}, False),
        ({'gate_zone': '0.45,0.5 0.46,0.5 0.46,1 0.45,1'}, True),
    ],
)
def test_an_object_counts_by_size_and_place(settings, counts):
    assert bool(in_zone(seen(), Settings(**settings))) == counts


def test_what_stands_beside_the_road_counts_if_asked_for():
    beside = seen(surroundings=np.array([2], np.uint8))
    assert not in_zone(beside, Settings())
    assert in_zone(beside, Settings(gate_on_road=False))
    assert in_zone(seen(surroundings=None), Settings())  # a profile that knows no road


def test_a_model_that_does_not_look_is_blind():
    health = Health(lambda level, text: None)
    worker = SimpleNamespace(doing='', enabled=True, learning=False)
    assert why_blind('active', worker, health) == ''
    assert 'inactive' in why_blind('inactive', worker, health)
    assert why_blind('active', None, health)
    for change in ({'doing': 'loading'}, {'enabled': False}, {'learning': True}):
        assert why_blind('active', SimpleNamespace(**{**vars(worker), **change}), health)
    health.warn('engine', 'slower than usual')
    assert why_blind('active', worker, health) == ''
    health.error('memory', 'no results: nothing was learnt')
    assert 'nothing was learnt' in why_blind('active', worker, health)


# ---- over DDS -----------------------------------------------------------------------------


class Road:
    """Camera, node and brake; what came out of them, with the steady time it came at."""

    def __init__(self, client: Client, process: NodeProcess) -> None:
        self.client, self.process, self.frames = client, process, 0
        self.states: list[tuple[float, int, str]] = []
        self.stops: list[tuple[float, bool]] = []
        ros, state = client.ros, f'/{client.node}/state'
        ros.create_subscription(DiagnosticStatus, state, self._state, LATCHED)
        ros.create_subscription(Bool, 'stop', self._stop, 10)
        command = [sys.executable, str(ROOT / 'examples' / 'brake_for_unknown.py'), '--ros-args']
        command += ['-p', f'states:=[{state}]']
        self.brake = subprocess.Popen(command, env=os.environ.copy())

    def _state(self, message: DiagnosticStatus) -> None:
        self.states.append((time.monotonic(), message.level[0], message.message))

    def _stop(self, message: Bool) -> None:
        self.stops.append((time.monotonic(), message.data))

    @property
    def stopped(self) -> bool:
        return self.stops[-1][1] if self.stops else True

    def show(self, pixels: np.ndarray) -> float:
        """Send a frame; returns the steady time at which it was sent."""
        message = image(pixels, frame='optical')
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 10**9)
        self.frames += 1
        sent = time.monotonic()
        self.client.publish('/camera/image_raw', message)
        return sent

    def drive(self, seconds: float, thing=lambda t: None, fps: float = 20.0) -> float:
        """Send frames with a red thing at row `thing(t)`; returns when the first was sent."""
        begin = first = time.monotonic()
        count = 0
        while time.monotonic() - begin < seconds:
            sent = self.show(frame(thing(time.monotonic() - begin)))
            first = sent if not count else first
            count += 1
            self.client.spin(timeout=max(begin + count / fps - time.monotonic(), 0.0))
        return first

    def changes(self, since: float) -> list[tuple[float, bool]]:
        """Times at which the stop flag changed, and what to."""
        found = [(at, now) for (_, before), (at, now) in pairwise(self.stops) if before != now]
        return [(at, now) for at, now in found if at >= since]

    def end(self) -> None:
        self.brake.send_signal(signal.SIGINT)
        assert self.brake.wait(30) == 0


GROUND = texture(2, 240, 320)


def frame(row: int | None = None, size: int = 40) -> np.ndarray:
    """The road, with a red square whose lower edge is at `row`."""
    pixels = np.stack([GROUND] * 3, -1)
    if row is not None:
        pixels[max(row - size, 0) : row, 140 : 140 + size] = (220, 60, 60)
    return pixels


@pytest.fixture(scope='module')
def road(ros, tmp_path_factory):
    folder = tmp_path_factory.mktemp('gate')
    name = f'gate_{os.getpid()}'
    control = folder / 'control'
    control.write_text(str(DETECTION))
    process = start(folder, name, control, max_rate=1 / PERIOD, gate_zone=LOWER_HALF)
    client = Client(rclpy.create_node(f'brake_test_{os.getpid()}'), name)
    client.wait_active(process)
    road = Road(client, process)
    road.control = control
    yield road
    road.end()
    code = process.stop()
    client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


def cruise(road: Road) -> None:
    """Clear road until the brake has let go."""
    road.control.write_text(str(DETECTION))
    end = time.monotonic() + 20 * PATIENCE
    while road.stopped and time.monotonic() < end:
        road.drive(0.3)
    assert not road.stopped, road.states[-3:]


def test_it_stops_in_time_holds_and_releases(road):
    cruise(road)
    away = road.drive(2.0, lambda t: 100)  # red, but above the zone
    assert road.changes(away) == []
    # From the first frame in which it reaches into the zone; a look may have begun just before.
    entered = road.drive(3.0, lambda t: 130)
    (stopped, what), *more = road.changes(entered)
    assert what
    assert not more, 'released while it was there'
    assert stopped - entered <= (2 * PERIOD + DETECTION) * PATIENCE + 0.1  # 0.1: hops of DDS
    assert 'object 7' in road.states[-1][2]
    gone = road.drive(0.6)  # one that is missed for a moment
    road.drive(0.7, lambda t: 130)
    assert road.changes(gone) == []
    left = road.drive(1.0 + (LOOKS + 2) * PERIOD * PATIENCE + 0.5)
    ((released, what),) = road.changes(left)
    assert not what
    assert released - left >= 1.0 - PERIOD


def test_it_is_blind_without_camera_and_without_looks(road):
    def becomes(level: int, seconds: float = 8.0, camera: bool = True) -> bool:
        since, end = time.monotonic(), time.monotonic() + seconds * PATIENCE
        while time.monotonic() < end:
            road.drive(0.1) if camera else road.client.spin(timeout=0.1)
            if any(at > since and found == level for at, found, _ in road.states):
                return True
        return False

    cruise(road)
    assert becomes(2, camera=False)  # the camera dies
    assert 'no fresh result' in road.states[-1][2]
    cruise(road)
    road.control.write_text('fail')
    assert becomes(2)
    assert road.client.spin(lambda: road.stopped, 5.0)
    cruise(road)
    assert road.client.set_bool('enable', False).success
    assert becomes(2)
    assert '~/enable' in road.states[-1][2]
    assert road.client.set_bool('enable', True).success
    cruise(road)
    assert road.client.change('deactivate')
    assert becomes(2)
    assert 'inactive' in road.states[-1][2]
    assert road.client.change('activate')
    cruise(road)


def test_moved_results_are_no_looks(road):
    """With a detect_rate below what the gate waits for, it is not fooled by what was moved."""
    cruise(road)
    assert road.client.set(detect_rate=0.5, gate_timeout=0.5)[0].successful
    begin = time.monotonic()
    road.drive(4.0)
    assert any(found == 2 for at, found, _ in road.states if at > begin)
    assert all(r.successful for r in road.client.set(detect_rate=0.0, gate_timeout=1.0))
    cruise(road)


def test_a_planner_that_starts_later_knows_at_once(road):
    got: list[DiagnosticStatus] = []
    topic = f'/{road.client.node}/state'
    end = road.client.ros.create_subscription(DiagnosticStatus, topic, got.append, LATCHED)
    assert road.client.spin(lambda: bool(got), 5.0)
    road.client.ros.destroy_subscription(end)


@pytest.mark.parametrize(
    ('zone', 'why'),
    [
        ('0,0.5 1,0.5 1,1.2 0,1', 'leaves the image'),
        ('0,240 320,240 320,480', 'leaves the image'),
        ('0,0 1,1', 'polygon'),
        ('0,0 0.5,0.5 1,1', 'no area'),
        ('', 'polygon'),
        ('a,b c,d e,f', 'polygon'),
    ],
)
def test_a_zone_that_is_none_is_refused(road, zone, why):
    (answer,) = road.client.set(gate_zone=zone)
    assert not answer.successful
    assert 'gate_zone' in answer.reason
    assert why in answer.reason


# ---- a drive with the real profile ---------------------------------------------------------

CORRIDOR = '0.3,0.7 0.7,0.7 0.9,1 0.1,1'
"""The lane ahead, of a camera that looks along the road."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_false_stops_in_a_minute_of_clear_road(ros, tmp_path):
    """Every frame of a rendered minute at five frames a second, through the shipped profile."""
    from ood_simulation import ProvingGround

    name = f'minute_{os.getpid()}'
    process = NodeProcess(
        tmp_path,
        name,
        {'image': '/camera/image_raw'},
        engine='auto',
        gate_zone=CORRIDOR,
        gate_timeout=5.0,
    )
    client = Client(rclpy.create_node(f'minute_test_{os.getpid()}'), name)
    client.wait_active(process)
    road, scores = Road(client, process), []
    client.ros.create_subscription(Float32, f'/{name}/frame_score', scores.append, 10)
    try:
        ground = ProvingGround(57, 480, 360, 5.0, unknowns=0, place='suburban')
        for shot in ground.drive(61.0):
            # The next frame comes when this one has been looked at, so each of them is.
            before, end = len(scores), time.monotonic() + 30 * PATIENCE
            while len(scores) == before and time.monotonic() < end:
                road.show(shot.image)
                client.spin(lambda before=before: len(scores) > before, 2.0)
        looked = [level for _, level, _ in road.states]
        first = looked.index(0)
        false_stops = sum(a == 0 and b == 1 for a, b in pairwise(looked[first:]))
        assert len(scores) >= 300
        assert 2 not in looked[first:]
        assert false_stops <= 1
    finally:
        road.end()
        assert process.stop() == 0
        client.ros.destroy_node()
