# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy')
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter

from ood_perception.ros import parameters
from ood_perception.ros.node import OodNode
from ood_perception.ros.settings import CameraSettings, Settings, default, fields
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
    parameters.declare_camera(node, 'front')
    parameters.declare_camera(node, 'front')
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
