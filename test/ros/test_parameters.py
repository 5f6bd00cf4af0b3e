# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip('rclpy')
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter

from ood_perception.ros import parameters
from ood_perception.ros.node import OodNode
from ood_perception.ros.settings import (
    ENGINE_NAMES,
    CameraSettings,
    Settings,
    default,
    fields,
)
from tools import reference

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def node(ros):
    node = OodNode(f'parameters_{os.getpid()}')
    yield node
    node.stop()
    node.destroy_node()


def declared(node) -> dict[str, object]:
    own = {'use_sim_time', 'start_type_description_service'}
    values = node.parameter_values()
    return {k: v for k, v in values.items() if k not in own and not k.startswith('qos_overrides.')}


def test_config_lists_every_declared_parameter_with_its_default(node):
    tree = yaml.safe_load((ROOT / reference.CONFIG).read_text(encoding='utf-8'))
    assert tree == {'/**': {'ros__parameters': declared(node)}}


def test_config_is_what_the_code_writes():
    assert (ROOT / reference.CONFIG).read_text(encoding='utf-8') == reference.config_text()


def test_documentation_page_is_what_the_code_writes():
    page = (ROOT / reference.PAGE).read_text(encoding='utf-8')
    assert page == reference.page_text(page)


def test_documentation_names_every_encoding():
    from ood_perception.frames.decode import ENCODINGS

    page = (ROOT / reference.PAGE).read_text(encoding='utf-8')
    sentence = page.partition('Understood encodings')[2].partition('Compressed images')[0]
    named = {word.strip('.,') for word in sentence.partition(':')[2].split()}
    assert named == set(ENCODINGS)


def test_a_missing_place_in_the_page_is_an_error():
    with pytest.raises(ValueError, match='one place for the table'):
        reference.page_text('nothing here')


def test_every_parameter_is_described(node):
    for name, field in {**fields(Settings), **fields(CameraSettings)}.items():
        assert field.metadata['text'].endswith('.'), name
    for descriptor in node.describe_parameters(list(fields(Settings))):
        assert descriptor.description
        assert descriptor.type != ParameterType.PARAMETER_NOT_SET
    ranged = node.describe_parameter('detection_threshold')
    assert ranged.floating_point_range[0].to_value == 1.0
    assert node.describe_parameter('max_batch').integer_range[0].from_value == 1
    assert node.describe_parameter('autostart').read_only


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('detection_threshold', 1.5, 'range'),
        ('detection_threshold', float('nan'), 'nan'),
        ('max_batch', 0, 'range'),
        ('jpeg_quality', 101, 'range'),
        ('overlay_colormap', 'beige', 'one of turbo'),
        ('image_transport', 'theora', 'one of raw, compressed'),
        ('device', 'tpu', 'auto, cpu, cuda'),
        ('cameras', ['front', 'no-good'], "got 'no-good'"),
        ('warm_up_size', [640], 'width and height'),
        ('profile', ' ', 'empty'),
        ('memory_file', '/tmp', 'folder'),
        ('max_batch', 'many', 'type'),
        ('autostart', False, 'read-only'),
    ],
)
def test_wrong_values_are_refused(node, name, value, reason):
    before = node.get_parameter(name).value
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful
    assert reason in result.reason.lower()
    assert node.get_parameter(name).value == before


def test_a_parameter_that_is_not_there_is_named_with_the_nearest(node):
    wrong, camera = Parameter('max_rat', value=5.0), Parameter('front.max_rate', value=5.0)
    refused, unnamed = node.set_parameters([wrong, camera])
    assert not refused.successful
    assert not unnamed.successful
    assert 'max_rat' in refused.reason
    assert 'did you mean max_rate?' in refused.reason
    assert "no camera is named 'front'" in unnamed.reason


def test_an_integer_does_for_a_double(node):
    (result,) = node.set_parameters([Parameter('max_rate', value=5)])
    assert result.successful
    value = node.get_parameter('max_rate').value
    assert (value, type(value)) == (5.0, float)
    assert node.settings.max_rate == 5.0
    atomically = [Parameter('min_range', value=1), Parameter('max_range', value=7)]
    assert node.set_parameters_atomically(atomically).successful
    assert node.settings.max_range == 7.0
    assert not node.set_parameters([Parameter('max_rate', value=5000)])[0].successful
    assert not node.set_parameters([Parameter('max_rate', value='5')])[0].successful


@pytest.mark.parametrize('given', [5, 5.0])
def test_values_at_the_start(ros, given):
    overrides = [Parameter('max_rate', value=given), Parameter('front.max_rate', value=2)]
    node = OodNode(f'started_{os.getpid()}', parameter_overrides=overrides)
    try:
        assert node.settings.max_rate == 5.0
        assert not node.has_parameter('front.max_rate')
        parameters.declare_camera(node, 'front', {'front.max_rate': 2})
        assert node.get_parameter('front.max_rate').value == 2.0
    finally:
        node.stop()
        node.destroy_node()


def test_setting_a_value_to_what_it_is_succeeds_for_every_parameter(node, monkeypatch):
    monkeypatch.setattr(node, 'worker', SimpleNamespace(stop=lambda timeout: True))  # configured
    present = [node.get_parameter(name) for name in declared(node)]
    assert all(result.successful for result in node.set_parameters(present))
    assert node.set_parameters_atomically(present).successful
    (refused,) = node.set_parameters([Parameter('profile', value='other')])
    assert not refused.successful
    (refused,) = node.set_parameters([Parameter('autostart', value=False)])
    assert not refused.successful


@pytest.mark.parametrize(
    ('name', 'value', 'text'),
    [
        ('max_batch', 'many', "max_batch: expected an integer such as 4, got 'many'"),
        ('max_batch', 2.5, 'expected an integer such as 4, got 2.5'),
        ('autostart', 'maybe', "expected true or false, such as true, got 'maybe'"),
        ('cameras', 'front', "expected a list such as [''], got 'front'"),
        ('cameras', [1, 2], "expected a list such as [''], got [1, 2]"),
        ('max_rate', True, 'expected a number such as 0.0, got True'),
        ('profile', 3, "expected a text such as 'compact', got 3"),
    ],
)
def test_another_type_at_the_start_is_refused_with_what_to_write(name, value, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        parameters.converted(name, fields(Settings)[name], value)


def test_integers_do_in_a_list_of_doubles():
    @dataclasses.dataclass
    class Ranges:
        limits: list[float] = dataclasses.field(default_factory=lambda: [0.0, 0.0])

    (limits,) = fields(Ranges).values()
    assert repr(parameters.converted('limits', limits, [0, 65535])) == '[0.0, 65535.0]'
    with pytest.raises(ValueError, match='limits: expected a list'):
        parameters.converted('limits', limits, ['a', 'b'])


def test_what_loses_nothing_is_converted():
    known = fields(Settings)
    assert parameters.converted('max_batch', known['max_batch'], 2.0) == 2
    assert parameters.converted('cameras', known['cameras'], []) == ['']
    assert parameters.converted('warm_up_size', known['warm_up_size'], [640, 480]) == [640, 480]


def test_engine_names_are_those_of_the_engines():
    from ood_perception.engines import ENGINES

    assert ('auto', *ENGINES) == ENGINE_NAMES


@pytest.mark.parametrize(
    ('given', 'text'),
    [
        ('detection_treshold', 'did you mean detection_threshold?'),
        ('threshold', 'did you mean detection_threshold or points_threshold?'),
        ('image_topic', '-r image:=/camera/image_raw'),
        ('front.maxrate', 'did you mean front.max_rate?'),
        ('rear.max_rate', "no camera is named 'rear' (front)"),
        ('zzz', 'there is none of that name'),
    ],
)
def test_unknown_parameters_are_named_with_the_nearest(given, text):
    (line,) = parameters.unknown(['max_rate', 'front.max_rate', given], ['front'])
    assert line.startswith(f'parameter {given} is ignored: ')
    assert text in line


def test_static_parameters_change_only_while_unconfigured(node):
    changed = [Parameter('profile', value='other')]
    assert parameters.check_changes(changed, configured=False).successful
    verdict = parameters.check_changes(changed, configured=True)
    assert not verdict.successful
    assert 'unconfigured' in verdict.reason
    live = [Parameter('overlay_alpha', value=0.1)]
    assert parameters.check_changes(live, configured=True).successful
    camera = [Parameter('front.input_qos', value='nonsense')]
    assert 'front.input_qos' in parameters.check_changes(camera, configured=False).reason


def test_live_changes_reach_the_settings(node):
    node.set_parameters([Parameter('overlay_alpha', value=0.25)])
    assert node.settings.overlay_alpha == 0.25


def test_cameras_take_the_general_value_unless_they_have_their_own(node):
    parameters.declare_camera(node, 'front', {})
    parameters.declare_camera(node, 'front', {})
    node.set_parameters(
        [Parameter('max_rate', value=5.0), Parameter('front.input_qos', value='reliable')]
    )
    camera = parameters.read_camera(node, 'front', parameters.read(node))
    assert camera == CameraSettings('raw', 'reliable', 5.0)
    assert parameters.read_camera(node, '', node.settings).image_transport == 'raw'


def test_check_names_the_parameter():
    with pytest.raises(ValueError, match="cameras: names must differ, got \\['a', 'a'\\]"):
        parameters.check(Settings(cameras=['a', 'a']))
    parameters.check(Settings())
    assert Settings().camera_names() == ['']
    assert default(fields(Settings)['cameras']) is not default(fields(Settings)['cameras'])
