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
import rclpy
from node_helpers import Client, NodeProcess, image, picture, pixels
from node_helpers import write_profile as tiny


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    folder = tmp_path_factory.mktemp('services')
    name = f'services_{os.getpid()}'
    process = NodeProcess(
        folder, name, profile=str(tiny(folder)), snapshot_folder=str(folder / 'snapshots')
    )
    client = Client(rclpy.create_node(f'caller_{os.getpid()}'), name)
    client.process, client.folder = process, folder
    client.wait_active(process)
    yield client
    code = process.stop()
    client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


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


def test_reset_starts_the_books_afresh(client):
    client.spin(lambda: client.count('processed') > 3, 5)
    answer = client.trigger('reset')
    assert answer.success
    assert answer.message == '1 camera(s) start afresh'
    assert client.spin(lambda: client.count('processed') == 0, 5)


def test_learning_needs_a_score_that_learns(client):
    answer = client.set_bool('learn_normal', True)
    assert not answer.success
    assert 'does not learn' in answer.message


def test_normal_is_learnt_saved_and_read_back(ros, tmp_path):
    memory = tmp_path / 'site' / 'normal.safetensors'
    profile = tiny(tmp_path, score={'name': 'novelty', 'options': {'capacity': 64}})
    name = f'novelty_{os.getpid()}'
    process = NodeProcess(
        tmp_path, name, profile=str(profile), memory_file=str(memory), publish_score=True
    )
    client = Client(rclpy.create_node(f'teacher_{os.getpid()}'), name)
    try:
        client.wait_active(process)
        normal = image(picture())
        assert client.set_bool('learn_normal', True).success
        # Learning needs no subscriber.
        assert client.feed('image', normal, lambda: client.count('processed') >= 3)
        answer = client.set_bool('learn_normal', False)
        assert answer.success, answer.message
        assert str(memory) in answer.message
        assert memory.stat().st_size > 0
        client.listen('score')

        def mean_score(frame) -> float:
            client.spin(timeout=0.5)
            client.got['score'].clear()
            assert client.feed('image', frame, lambda: len(client.got['score']) >= 2)
            return float(pixels(client.got['score'][-1]).mean())

        strange = image(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
        strange.header.stamp.sec = 10_000
        usual, unusual = mean_score(normal), mean_score(strange)
        assert unusual > usual
        assert client.change('deactivate')
        assert client.change('cleanup')
        assert client.change('configure')
        assert client.change('activate')
        normal.header.stamp.sec = 20_000
        assert mean_score(normal) == pytest.approx(usual, abs=0.05 * abs(unusual - usual))
        assert client.change('deactivate')
        assert client.change('cleanup')
        memory.write_bytes(memory.read_bytes()[:100])
        assert not client.change('configure')
        assert 'normal.safetensors' in process.text()
        assert process.stop() == 0
    finally:
        if process.alive:
            process.process.kill()
        client.ros.destroy_node()
