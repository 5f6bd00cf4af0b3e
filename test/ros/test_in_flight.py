# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A node that works on two frames at once."""

from __future__ import annotations

import os

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from node_helpers import NodeProcess, client_of, image, picture
from node_helpers import write_profile as tiny


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    folder = tmp_path_factory.mktemp('in_flight')
    name = f'in_flight_{os.getpid()}'
    settings = {'profile': str(tiny(folder)), 'frames_in_flight': 2, 'publish_score': True}
    process = NodeProcess(folder, name, {'image': '/camera/image_raw'}, **settings)
    with client_of(process, name) as client:
        yield client


def test_outputs_come_once_and_in_order(client):
    client.listen('heatmap')
    client.listen('instances')
    frame = image(picture())
    assert client.feed('/camera/image_raw', frame, lambda: len(client.got['instances']) >= 20)
    for topic in ('heatmap', 'instances'):
        stamps = [m.header.stamp.sec for m in client.got[topic]]
        assert stamps == sorted(set(stamps)), topic
    assert client.count('failed') == 0


def test_the_number_changes_while_unconfigured_only(client):
    (verdict,) = client.set(frames_in_flight=1)
    assert not verdict.successful
    assert 'frames_in_flight can change only while the node is unconfigured' in verdict.reason
