# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Faults of the engine over DDS: they are told and got over."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from recovery_helpers import (
    ERROR,
    faulty_node,
    feed,
    forget,
    fresh,
    level,
    message,
    rendered,
    well,
)

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
