# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from node_helpers import NodeProcess, client_of, image, picture
from node_helpers import write_profile as tiny


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    folder = tmp_path_factory.mktemp('services')
    name = f'services_{os.getpid()}'
    process = NodeProcess(
        folder, name, profile=str(tiny(folder)), snapshot_folder=str(folder / 'snapshots')
    )
    with client_of(process, name) as client:
        client.folder = folder
        yield client


def test_a_snapshot_needs_a_frame(client):
    answer = client.trigger('save_snapshot')
    assert not answer.success
    assert 'no frame has been processed yet' in answer.message


def test_enable_pauses_and_resumes(client):
    client.listen('heatmap')
    frame = image(picture())
    assert client.feed('image', frame, lambda: bool(client.got['heatmap']))
    assert client.set_bool('enable', False).success
    client.spin(timeout=1.0)
    client.got['heatmap'].clear()
    assert not client.feed('image', frame, lambda: bool(client.got['heatmap']), 1.0)
    client.spin(lambda: client.statuses['pipeline']['level'] == b'\x01', 5)
    assert 'disabled' in client.statuses['pipeline']['message']
    assert client.set_bool('enable', True).success
    assert client.feed('image', frame, lambda: bool(client.got['heatmap']))


def test_snapshot_has_frame_outputs_and_parameters(client):
    shown = picture(80, 100)
    frame = image(shown, frame='camera_optical_frame')
    frame.header.stamp.sec = 500
    client.got['heatmap'].clear()
    assert client.feed('image', frame, lambda: any(m.height == 80 for m in client.got['heatmap']))
    answer = client.trigger('save_snapshot')
    assert answer.success, answer.message
    folder = Path(answer.message)
    assert folder.parent == client.folder / 'snapshots'
    saved = cv2.imread(str(folder / 'image.png'))[..., ::-1]
    assert np.array_equal(saved, shown)
    for name in ('heatmap', 'instances', 'semantic'):
        pixels = cv2.imread(str(folder / f'{name}.png'), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (80, 100), name
    assert cv2.imread(str(folder / 'instances.png'), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert (folder / 'overlay.png').stat().st_size > 0
    score = np.load(folder / 'score.npy', allow_pickle=False)
    assert score.dtype == np.float32
    tree = json.loads((folder / 'snapshot.json').read_text())
    assert tree['frame']['header']['frame_id'] == 'camera_optical_frame'
    assert tree['parameters']['overlay_alpha'] == 0.6
    assert tree['profile']['name'] == 'tiny'
    assert set(tree['computed_for_the_snapshot']) == {'score', 'instances'}
    again = client.trigger('save_snapshot')
    assert again.success
    assert again.message != answer.message


def test_snapshot_into_a_folder_that_cannot_be(client):
    assert client.set(snapshot_folder='/proc/nowhere')[0].successful
    answer = client.trigger('save_snapshot')
    assert not answer.success
    assert 'Error' in answer.message
    frame = image(picture())
    frame.header.stamp.sec = 10_000
    client.got['heatmap'].clear()
    assert client.feed('image', frame, lambda: bool(client.got['heatmap']))


def test_reset_starts_the_statistics_afresh(client):
    client.spin(lambda: client.count('processed') > 3, 5)
    answer = client.trigger('reset')
    assert answer.success
    assert answer.message == '1 camera(s) start afresh'
    assert client.spin(lambda: client.count('processed') == 0, 5)


def test_learning_needs_a_score_that_learns(client):
    answer = client.set_bool('learn_normal', True)
    assert not answer.success
    assert 'does not learn' in answer.message


def test_a_budget_of_alarms_takes_what_was_measured(client):
    assert client.set(alarms_per_hour=1.0)[0].successful
    client.spin(lambda: 'was not measured' in client.statuses['pipeline']['message'], 10)
    assert '~/calibrate: with true' in client.statuses['pipeline']['message']
    answer = client.set_bool('calibrate', False)
    assert not answer.success
    assert 'less than 5 s' in answer.message
    assert client.set_bool('calibrate', True).success
    before = client.count('processed')
    client.feed('image', image(picture()), lambda: False, 8.0)
    assert client.count('processed') > before
    assert 'measuring normal operation' in client.statuses['pipeline']['message']
    answer = client.set_bool('calibrate', False)
    assert answer.success, answer.message
    assert 'estimated, not promised' in answer.message
    assert client.set(alarms_per_hour=0.0)[0].successful
