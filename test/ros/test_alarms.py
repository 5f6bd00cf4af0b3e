# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from ood_perception.alarm_budget import Peaks
from ood_perception.ros.alarms import Alarms
from ood_perception.ros.diagnostics import alarm_values
from ood_perception.ros.settings import Settings


def found(*rows: tuple[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and confidences of objects."""
    ids, confidences = np.array(rows).reshape(-1, 2).T
    return ids.astype(int), confidences


def measured(alarms: Alarms, confidence: float, seconds: int = 3600, file: str = '') -> str:
    alarms.measuring = Peaks()
    for i in range(2 * seconds + 1):
        # one object of four looks in every 100 s
        rows = [(i // 200 + 1, confidence)] if i % 200 < 4 else []
        alarms.look('camera', i / 2, *found(*rows))
    return alarms.stop(file, 'compact 0123')


def test_the_budget_takes_the_place_of_the_threshold(tmp_path):
    alarms, settings = Alarms(), Settings(alarms_per_hour=2.0)
    assert alarms.applied(settings) is settings
    assert 'normal operation was not measured' in alarms.problem
    file = str(tmp_path / 'alarms.json')
    assert file in measured(alarms, 0.75, file=file)
    used = alarms.applied(settings)
    assert used.detection_threshold == pytest.approx(0.75, abs=1e-5)
    assert used.detection_threshold > 0.75
    assert alarms.verdict.promised
    assert settings.detection_threshold == 0.5  # what the user set stays
    # thirty-six such objects an hour are within a budget of forty
    loose = alarms.applied(Settings(alarms_per_hour=40.0))
    assert loose.detection_threshold < 1e-5
    assert alarms.applied(Settings()).detection_threshold == 0.5
    again = Alarms()
    again.read(file, 'compact 0123')
    assert again.applied(settings) == used
    other = Alarms()
    other.read(file, 'compact 4567')
    assert other.applied(settings) is settings
    assert 'measure anew' in other.problem
    other.read(str(tmp_path / 'none.json'), 'compact 4567')
    other.applied(settings)
    assert 'none.json' in other.problem


def test_too_short_keeps_what_was_known():
    alarms, settings = Alarms(), Settings(alarms_per_hour=2.0)
    measured(alarms, 0.75)
    alarms.measuring = Peaks()
    alarms.look('camera', 0.0, *found())
    with pytest.raises(ValueError, match='less than 5 s'):
        alarms.stop('', '')
    assert alarms.measuring is None
    assert alarms.applied(settings).detection_threshold > 0.75
    alarms.forget()
    assert alarms.applied(settings) is settings
    assert 'learnt since' in alarms.problem


def test_more_alarms_than_the_budget_are_told():
    alarms = Alarms()
    measured(alarms, 0.75)
    used = alarms.applied(Settings(alarms_per_hour=2.0))
    assert alarms.rate(used) == (0, 0.0, False)
    for i in range(1200):
        rows = [(i // 100 + 1, 0.9)] if i % 100 < 4 else []
        alarms.look('camera', i / 2, *found(*rows))
    count, hours, broken = alarms.rate(used)
    assert (count, broken) == (12, True)
    assert hours == pytest.approx(1 / 6, abs=0.01)
    values = alarm_values(alarms, used)
    assert values['alarms'] == '12 in the last 0.17 h'
    assert 'promised' in values['alarm_budget']
    # objects that the threshold leaves out are none
    assert alarms.rate(alarms.applied(Settings(alarms_per_hour=0.0)))[2] is False
