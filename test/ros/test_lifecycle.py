# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from lifecycle_msgs.msg import State
from node_helpers import NodeProcess, client_of, image, picture
from node_helpers import write_profile as tiny

UNCONFIGURED = State.PRIMARY_STATE_UNCONFIGURED
INACTIVE = State.PRIMARY_STATE_INACTIVE
ACTIVE = State.PRIMARY_STATE_ACTIVE


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    """A client of a node that waits for a manager."""
    folder = tmp_path_factory.mktemp('lifecycle')
    name = f'managed_{os.getpid()}'
    process = NodeProcess(folder, name, profile=str(folder / 'none.yaml'), autostart=False)
    with client_of(process, name, active=False) as client:
        client.folder = folder
        yield client


def test_a_missing_profile_is_a_failure_with_a_clear_line(client):
    assert client.state() == UNCONFIGURED
    assert not client.change('configure')
    assert client.state() == UNCONFIGURED
    log = client.process.text()
    assert 'cannot configure' in log
    assert str(client.folder / 'none.yaml') in log
    assert client.spin(lambda: client.statuses.get('pipeline', {}).get('level') == b'\x02', 10)
    assert 'cannot configure' in client.statuses['pipeline']['message']


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'segmentor': {'name': 'compact', 'weights': '/none/w.safetensors'}}, '/none/w.safe'),
        ({'segmentor': {'name': 'compcat'}}, "did you mean 'compact'"),
        ({'colour': 3}, 'colour: unknown key'),
    ],
)
def test_wrong_profiles_and_weights(client, changes, text):
    path = tiny(client.folder, **changes)
    assert client.set(profile=str(path))[0].successful
    assert not client.change('configure')
    assert text in client.process.text()
    assert client.state() == UNCONFIGURED


def test_weights_swapped_for_something_else(client):
    weights = client.folder / 'swapped.safetensors'
    weights.write_bytes(b'this is no safetensors file' * 10)
    path = tiny(client.folder, segmentor={'name': 'compact', 'weights': str(weights)})
    assert client.set(profile=str(path))[0].successful
    assert not client.change('configure')
    assert client.state() == UNCONFIGURED
    assert 'swapped.safetensors' in client.process.text()


def test_the_whole_cycle_twice(client):
    path = tiny(client.folder)
    assert client.set(profile=str(path), release_on_deactivate=True)[0].successful
    client.listen('heatmap')
    frame = image(picture())
    memory, topic = [], f'/{client.node}/heatmap'
    for _ in range(2):
        assert client.change('configure')
        assert client.state() == INACTIVE
        # inactive: nothing is subscribed
        assert client.ros.count_subscribers('/image') == 0
        assert client.change('activate')
        assert client.state() == ACTIVE
        client.got['heatmap'].clear()
        assert client.feed('image', frame, lambda: len(client.got['heatmap']) >= 2)
        assert client.change('deactivate')
        client.spin(timeout=0.5)
        client.got['heatmap'].clear()
        assert not client.feed('image', frame, lambda: bool(client.got['heatmap']), 1.0)
        # with release_on_deactivate the pipeline comes back by itself
        assert client.change('activate')
        assert client.feed('image', frame, lambda: bool(client.got['heatmap']))
        assert client.change('deactivate')
        assert client.change('cleanup')
        assert client.state() == UNCONFIGURED
        # the graph hears of it a moment after the answer
        assert client.spin(lambda: client.ros.count_publishers(topic) == 0, 5.0)
        client.spin(timeout=1.2)
        memory.append(float(client.values('pipeline')['memory_mb']))
    assert memory[1] < memory[0] + 60


def test_a_manager_can_shut_it_down(client):
    assert client.change('unconfigured_shutdown')
    assert client.state() == State.PRIMARY_STATE_FINALIZED
    assert client.process.alive
