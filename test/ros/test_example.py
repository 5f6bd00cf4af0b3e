# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The example that brakes: as a process of its own, over real DDS."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from std_msgs.msg import Bool, String

from ood_perception.result import SURROUNDINGS

EXAMPLE = Path(__file__).resolve().parents[2] / 'examples' / 'brake_for_unknown.py'
OBJECT = {'id': 1, 'score': 0.9, 'box': [300, 350, 360, 420], 'area': 3000}
OBJECT |= {'surroundings': 'on_road'}


def frame(*detections: dict[str, Any]) -> str:
    return json.dumps({'width': 640, 'height': 480, 'detections': detections})


class Brake:
    """The example's answers to detections."""

    def __init__(self, ros_node: Any, spin_until: Callable[..., bool]):
        self.answers: list[bool] = []
        self.spin = spin_until
        self.publisher = ros_node.create_publisher(String, 'detections_json', 1)
        ros_node.create_subscription(Bool, 'stop', lambda m: self.answers.append(m.data), 1)

    def settles(self, expected: bool, text: str = '') -> bool:
        """Whether three answers in a row become `expected` while `text` is sent again."""

        def arrived() -> bool:
            if text:
                self.publisher.publish(String(data=text))
            return self.answers[-3:] == [expected] * 3

        self.answers.clear()
        return self.spin(arrived)


@pytest.fixture
def brake(ros_node: Any, spin_until: Callable[..., bool]) -> Iterator[Brake]:
    command = [sys.executable, str(EXAMPLE), '--ros-args', '-p', 'hold:=0.2']
    process = subprocess.Popen([*command, '-p', 'stale_after:=0.8'], env=os.environ.copy())
    try:
        yield Brake(ros_node, spin_until)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert code == 0


def test_stops_for_what_counts(brake: Brake):
    assert brake.settles(True)  # nothing heard yet
    assert brake.settles(False, frame())
    assert brake.settles(True, frame(OBJECT))
    assert brake.settles(False, frame({**OBJECT, 'area': 399}))
    assert brake.settles(True, frame({**OBJECT, 'area': 400}))
    assert brake.settles(False, frame({**OBJECT, 'box': [300, 100, 360, 239]}))
    assert brake.settles(True, frame({**OBJECT, 'box': [300, 100, 360, 240]}))
    assert brake.settles(False, frame({**OBJECT, 'surroundings': 'in_air'}))
    small = {**OBJECT, 'id': 2, 'area': 10}
    assert brake.settles(True, frame(small, OBJECT))


@pytest.mark.parametrize('name', SURROUNDINGS)
@pytest.mark.parametrize('on_road', [True, False])
def test_every_profile_can_stop_it(name: str, on_road: bool):
    """A profile without classes says 'none', and its objects count by their place."""
    found = runpy.run_path(str(EXAMPLE))['is_dangerous'](
        {**OBJECT, 'surroundings': name}, 480, 400, 0.5, on_road
    )
    assert found == (name in ('on_road', 'none') or not on_road)


def test_silence_and_nonsense_stop(brake: Brake):
    assert brake.settles(False, frame())
    assert brake.settles(True)
    assert brake.settles(False, frame())
    for text in ('{', '[]', '{"height": 480, "detections": [{}]}', '{"detections": 3}'):
        assert brake.settles(True, text), text
    assert brake.settles(False, frame())
