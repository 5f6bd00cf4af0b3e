# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Requirements, false alarms and zones that do not count."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from typer.testing import CliRunner

from ood_evaluation.evaluator import Evaluator, Frame
from ood_evaluation.pixel_metrics import InputError
from ood_evaluation.report import AT_LEAST, AT_MOST, missed, parse_requirements
from ood_evaluation.time_metrics import Alarms
from ood_perception import engines
from ood_perception.cli.main import build
from ood_perception.frames.zones import corners, inside, mostly_inside
from ood_perception.result import Result

from small_models import small_profile

BONNET = '0,0.8 1,0.8 1,1 0,1'
RUNNER = CliRunner()


def test_more_is_better_or_less_is():
    required = parse_requirements(['ap=0.9', 'alarms_per_minute = 1'])
    assert missed({'ap': 0.9, 'alarms_per_minute': 1.0}, required) == []
    ap, alarms = missed({'ap': 0.89, 'alarms_per_minute': 1.1}, required)
    assert '0.89' in ap
    assert '>= 0.9' in ap
    assert '<= 1' in alarms
    assert 'not measured' in missed({'ap': None}, {'ap': 0.5})[0]
    assert missed({'ap': float('nan')}, {'ap': 0.5})


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        ('app=0.9', 'did you mean ap?'),
        ('alarm_per_minute=1', 'alarms_per_minute'),
        ('ap', 'ap=0.9'),
        ('ap=high', 'ap=0.9'),
    ],
)
def test_wrong_requirements(text, why):
    with pytest.raises(ValueError, match=r'expected|no figure') as error:
        parse_requirements([text])
    assert why in str(error.value)


def labelled(second: float, false_id: int = 0, true_id: int = 0) -> Frame:
    """A frame 100x100 whose unknown thing is on the left; a false object would be on the right."""
    frame = Frame(round(second * 1e9), 's')
    frame.anomaly = np.zeros((100, 100), np.uint8)
    frame.anomaly[40:60, 10:30] = 1
    frame.truth = frame.anomaly.astype(np.uint16) * 5
    frame.instances = np.zeros((100, 100), np.uint16)
    frame.instances[40:60, 10:30] = true_id
    frame.instances[85:95, 70:90] = false_id
    frame.heatmap = np.where(frame.instances > 0, 220, 10).astype(np.uint8)
    frame.score = frame.heatmap.astype(np.float32)
    frame.latency_ms = 5.0
    return frame


def evaluated(zones=()):
    evaluator = Evaluator('x', track='anomaly', pictures=0, zones=zones)
    for k in range(31):
        evaluator.update(labelled(k, false_id=8 if k < 10 else 9, true_id=3))
    return evaluator.compute(dropped=0, fps=1.0).summary


def test_every_figure_that_can_be_required_is_there():
    assert set(AT_LEAST + AT_MOST) <= set(evaluated())


def test_an_object_that_stays_is_one_alarm():
    assert evaluated()['false_alarms'] == 2
    assert evaluated()['alarms_per_minute'] == pytest.approx(4.0)


def test_an_object_that_was_right_once_is_no_alarm():
    alarms, frame = Alarms(), labelled(0.0, 3)
    alarms.update(0, frame.instances, frame.anomaly, 'a')
    assert alarms.compute()['false_alarms'] == 1
    assert np.isnan(alarms.compute()['alarms_per_minute'])
    other = Alarms()
    other.update(0, frame.instances, frame.anomaly, 'b')  # another stream's 3 is another object
    alarms.merge(other)
    frame = labelled(1.0, true_id=3)
    alarms.update(10**9, frame.instances, frame.anomaly, 'a')
    assert alarms.compute()['false_alarms'] == 1
    with pytest.raises(InputError, match='labels'):
        alarms.update(0, frame.instances, frame.anomaly[1:])


def test_the_own_bonnet_does_not_count():
    with_bonnet, without = evaluated([BONNET]), evaluated()
    assert with_bonnet['false_alarms'] == 0
    assert with_bonnet['instance_precision'] == 1
    assert with_bonnet['ap'] == pytest.approx(1.0, abs=1e-3)
    assert without['instance_precision'] == 0.5
    assert without['ap'] < 0.9


def test_pixels_and_objects_of_a_zone():
    zone = inside((BONNET,), 100, 50)
    assert zone[81:].all()
    assert not zone[:79].any()
    instances = np.zeros((100, 50), np.uint16)
    instances[60:90, :10], instances[75:99, 20:40] = 4, 60000  # a third and most of it
    assert mostly_inside(instances, zone).tolist() == [60000]


def test_the_node_leaves_the_same_out():
    pytest.importorskip('rclpy', reason='needs rclpy')
    from ood_perception.ros.detections import outside

    frame = labelled(0.0, 8, 3)
    result = Result(
        heatmap=frame.heatmap,
        score=frame.score,
        instances=frame.instances,
        ids=np.array([3, 8]),
        boxes=np.zeros((2, 4), np.float32),
        confidences=np.array([0.9, 0.8], np.float32),
    )
    found = outside(result, ['', BONNET])
    assert found.ids.tolist() == [3]
    assert set(np.unique(found.instances)) == {0, 3}
    assert found.heatmap[90, 80] == 0
    assert found.score[90, 80] == 10
    assert result.heatmap[90, 80] == 220
    assert outside(result, ['']) is result
    empty = dataclasses.replace(result, ids=None, boxes=None, instances=None)
    assert outside(empty, [BONNET]).heatmap[90, 80] == 0


@pytest.mark.parametrize(
    ('zone', 'why'),
    [('0,0 640,0 640,480', 'leaves the image'), ('0,0 1,1', 'polygon'), ('0,0 1,1 0,0', 'area')],
)
def test_a_zone_outside_the_image(zone, why):
    with pytest.raises(ValueError, match=why):
        corners(zone)


@pytest.mark.parametrize(
    'arguments',
    [['--require', 'app=0.9'], ['--require', 'ap=x'], ['--ignore-zone', '0,0 2,0 2,2']],
)
def test_wrong_arguments_end_with_2_before_anything_runs(arguments):
    result = RUNNER.invoke(build('evaluate'), ['evaluate', 'drive', *arguments])
    assert result.exit_code == 2, result.output


def test_a_missed_requirement_ends_with_1(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, 'candidates', lambda *_: ['eager'])  # spare their measuring
    small = '--profile', small_profile(tmp_path, 'compact')

    def run(*more: str):
        command = ['evaluate', 'drive', '--seconds', '0.2', '--output', str(tmp_path), *small]
        return RUNNER.invoke(build('evaluate'), [*command, *more])

    result = run('--require', 'frames=3', '--ignore-zone', BONNET)
    assert result.exit_code == 1, result.output
    assert 'frames: 2, required >= 3' in result.output
    result = run('--require', 'frames=2')
    assert result.exit_code == 0, result.output
