# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Faults over DDS: they are told and got over."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from node_helpers import image, rows
from recovery_helpers import (
    ERROR,
    OK,
    TOPIC,
    WARN,
    faulty_node,
    feed,
    forget,
    fresh,
    level,
    message,
    rendered,
    well,
)
from sensor_msgs.msg import CameraInfo

from small_models import small_profile


@pytest.fixture(scope='module')
def scene():
    return rendered(160, 120)  # what is on it does not matter


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    """Of a node with small images: faults come and go as with large ones, but sooner."""
    folder = tmp_path_factory.mktemp('recovery')
    with faulty_node(folder, small_profile(folder, 'compact')) as client:
        yield client


@pytest.fixture
def folder(client):
    return client.control.parent


def test_a_fault_that_passes_changes_nothing(client, scene):
    before = client.process.text().count('loading profile')
    client.control.write_text('fail')
    client.spin(timeout=0.2)
    feed(client, scene, lambda: client.count('failed') > 0, 0.6)
    client.control.write_text('')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client), 30)
    assert client.process.text().count('loading profile') == before


def test_a_pipeline_that_fails_and_cannot_be_replaced_is_an_error_until_it_works(client, scene):
    assert feed(client, scene, lambda: well(client))
    client.control.write_text('fail broken')
    assert feed(client, scene, lambda: level(client) == ERROR)
    assert feed(client, scene, lambda: 'could not be loaded' in client.process.text())
    assert 'injected' in message(client)
    assert level(client, 'camera') == ERROR
    tries = client.process.text().count('loading profile')
    assert feed(client, scene, lambda: client.process.text().count('loading profile') > tries)
    client.control.write_text('')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client))


def test_a_pipeline_that_is_lost_is_loaded_anew(client, scene):
    assert feed(client, scene, lambda: well(client))
    before = client.process.text().count('loading profile')

    def died() -> bool:
        if 'this one is dead' in client.process.text():
            return True
        client.control.write_text('dead')  # as of now
        return False

    assert feed(client, scene, died)
    forget(client)
    loaded = lambda: client.process.text().count('loading profile') > before  # noqa: E731
    assert feed(client, scene, lambda: loaded() and fresh(client) and well(client), 90)
    client.control.write_text('')


def test_a_network_that_hangs_is_an_error_until_it_returns(client, scene):
    assert feed(client, scene, lambda: well(client))
    client.control.write_text('hang')
    assert feed(client, scene, lambda: level(client) == ERROR and level(client, 'camera') == ERROR)
    assert 'not come back' in message(client)
    assert 'no result' in message(client, 'camera')
    # services answer meanwhile
    assert not client.trigger('reset').success
    assert client.set(overlay_alpha=0.6)[0].successful
    client.control.write_text('')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client))


def test_a_network_that_never_returns_is_replaced(client, scene):
    client.control.write_text('hang')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client), 120)
    client.control.write_text('')


def test_two_nodes_of_one_name_are_told(client, scene):
    twin = rclpy.create_node(client.node)
    assert client.spin(lambda: level(client) == WARN and '2 nodes' in message(client), 20)
    assert f'2 nodes are named /{client.node}' in client.process.text()
    twin.destroy_node()
    assert client.spin(lambda: '2 nodes' not in message(client), 20)


def test_silence_names_the_topics_that_exist(client, scene):
    assert feed(client, scene, lambda: well(client))
    client.publish('/other/image_raw', image(scene.image[:32, :32].copy()))
    assert client.spin(lambda: f'no image on {TOPIC} for' in message(client, 'camera'), 20)
    assert client.spin(lambda: 'publisher(s) are there but send nothing' in client.process.text())
    client.forget(TOPIC, type(image(scene.image)))
    assert feed(client, scene, lambda: well(client))
    client.forget(TOPIC, type(image(scene.image)))
    assert client.spin(
        lambda: (
            'nobody publishes it; image topics that exist: /other/image_raw (Image)'
            in client.process.text()
        ),
        20,
    )
    assert feed(client, scene, lambda: well(client))


def test_a_memory_that_was_never_taught_says_nothing(folder, client, scene):
    assert client.change('deactivate')
    assert client.change('cleanup')
    missing = folder / 'normal.safetensors'
    novelty = small_profile(folder, 'compact_novelty')
    assert all(r.successful for r in client.set(profile=novelty, memory_file=str(missing)))
    assert client.change('configure')
    assert client.change('activate')
    forget(client)
    processed = client.count('processed')
    assert feed(client, scene, lambda: level(client) == ERROR)
    assert feed(client, scene, lambda: client.count('processed') > processed + 2)
    assert str(missing) in message(client)
    assert 'learn_normal' in message(client)
    assert not any(client.got.values())
    assert client.set_bool('learn_normal', True).success
    count = client.count('processed')
    assert feed(client, scene, lambda: client.count('processed') > count + 6)
    assert not fresh(client)
    assert level(client) == WARN
    answer = client.set_bool('learn_normal', False)
    assert answer.success, answer.message
    assert feed(client, scene, lambda: fresh(client) and well(client))
    assert missing.stat().st_size > 0
    # the memory outlives a pipeline that is given back
    missing.unlink()
    assert client.set(release_on_deactivate=True)[0].successful
    assert client.change('deactivate')
    assert client.change('activate')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client))


def test_a_damaged_memory_file_is_refused_by_name(folder, client):
    assert client.change('deactivate')
    assert client.change('cleanup')
    damaged = folder / 'damaged.safetensors'
    damaged.write_bytes(b'no safetensors' * 9)
    assert client.set(memory_file=str(damaged))[0].successful
    assert not client.change('configure')
    assert client.spin(lambda: level(client) == ERROR, 10)
    assert 'damaged.safetensors' in message(client)
    small = small_profile(folder, 'compact')
    assert client.set(memory_file='', profile=small)[0].successful
    assert client.change('configure')
    assert client.change('activate')
    assert client.spin(lambda: level(client) == OK, 10)


def test_depth_that_does_not_come_is_a_warning_until_it_does(folder, client):
    assert client.change('deactivate')
    assert client.change('cleanup')
    # large enough to find something
    scene = rendered(640, 480)
    profile = small_profile(folder, 'compact', 288)
    values = {'depth': 'image', 'memory_file': '', 'profile': profile}
    assert all(r.successful for r in client.set(**values))
    assert client.change('configure')
    assert client.change('activate')
    assert feed(client, scene, lambda: 'no depth has come yet' in message(client, 'camera'))
    assert level(client, 'camera') == WARN
    height, width = scene.image.shape[:2]
    metres = image(np.full((height, width), 5.0, np.float32), '32FC1')
    info = CameraInfo(height=height, width=width)
    info.k = [500.0, 0, width / 2, 0, 500.0, height / 2, 0, 0, 1.0]

    def with_depth(condition):
        def check() -> bool:
            metres.header.stamp.sec = client.newest.header.stamp.sec
            client.publish('/camera/camera_info', info)
            client.publish('/depth', metres)
            return condition()

        return check

    forget(client)
    placed = lambda: [  # noqa: E731
        r for m in client.got['detections_json'] for r in rows(m) if 'position' in r
    ]
    assert feed(client, scene, with_depth(lambda: placed() and well(client)))
    assert all(r['position'][2] == pytest.approx(5.0) for r in placed())
    assert feed(client, scene, lambda: 'depth' in message(client, 'camera'))
    assert feed(client, scene, with_depth(lambda: well(client)))
