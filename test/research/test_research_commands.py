# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Commands run to their end at tiny size: stage 1, the light prompts, the masks stage."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_perception.masks import create_prompts
from ood_perception.pipeline import Pipeline
from ood_perception.profile import Profile
from research import prompt_runs, segmentor
from research.train_masks import masks

pytestmark = pytest.mark.slow

torch.set_num_threads(1)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Labelled frames in CamVid's layout with an index, and cut-outs."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for folder in ('frames/images', 'frames/labels', 'objects'):
        (root / folder).mkdir(parents=True)
    rows = []
    for i in range(4):
        label = np.zeros((64, 80), np.uint8)
        label[32:], label[40:56, 20:44], label[0] = 3, 8, 11
        image = np.stack([label * 20 + 30, 200 - label * 9, label * 5], -1)
        image = (image + rng.integers(0, 12, image.shape)).astype(np.uint8)
        Image.fromarray(image).save(root / 'frames' / 'images' / f'{i}.png')
        Image.fromarray(label).save(root / 'frames' / 'labels' / f'{i}.png')
        rows.append({'image': f'images/{i}.png', 'sequence': 'ab'[i == 3]})
    _index(root / 'frames' / 'INDEX.csv', rows)
    rows = []
    for i in range(12):
        rgba = rng.integers(0, 256, (40, 30, 4)).astype(np.uint8)
        rgba[..., 3] = 255
        Image.fromarray(rgba).save(root / 'objects' / f'{i}.png')
        rows.append({'file': f'{i}.png', 'coco_image_id': str(i), 'recommended': '1'})
    _index(root / 'objects' / 'INDEX.csv', rows)
    return root


def run(command, arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, arguments)


def _index(path, rows):
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_segmentor_to_a_profile_that_runs_and_again(data, tmp_path):
    frames = f'camvid:{data / "frames"}'
    arguments = ['--preset', 'compact', '--data', frames, '--val', frames]
    arguments += ['--out', str(tmp_path)]
    for change in (
        'recipe=uem', 'options.crop=[64, 80]', 'options.pad=[64, 80]', 'steps=2',
        'batch_size=2', 'workers=0', 'warmup_steps=1', 'validate_every=2',
    ):  # fmt: skip
        arguments += ['--set', change]
    result = run(segmentor.command, arguments)
    assert result.exit_code == 0, result.output
    profile = tmp_path / 'segmentor' / 'weights.yaml'
    loaded = Profile.load(profile)
    assert loaded.score.name == 'max_logit'
    assert len(loaded.classes) == 11
    assert 'miou' in profile.with_suffix('.md').read_text()
    (found,) = Pipeline.from_profile(profile, 'cpu', 'eager')(np.zeros((64, 80, 3), np.uint8))
    assert found.score.shape == (64, 80)
    assert np.isfinite(found.score).all()
    before = profile.with_suffix('.safetensors').read_bytes()
    assert run(segmentor.command, arguments).exit_code == 0
    assert profile.with_suffix('.safetensors').read_bytes() == before


def test_light_prompts_from_frames_and_objects(data, tmp_path):
    arguments = ['--data', str(data / 'frames' / 'images'), '--out', str(tmp_path)]
    arguments += ['--objects', str(data / 'objects'), '--steps', '2']
    result = run(prompt_runs.command, arguments)
    assert result.exit_code == 0, result.output
    path = tmp_path / 'light_prompts.safetensors'
    assert str(path) in result.output
    assert path.stat().st_size < 2e6
    assert 'sha256' in path.with_suffix('.md').read_text()
    probability = torch.rand(1, 64, 80)
    images = torch.randint(0, 256, (1, 3, 64, 80), dtype=torch.uint8)
    prompts = create_prompts('score_detector', weights=str(path))
    assert prompts(images, probability, probability).boxes.shape[1] == 16
    wrong = run(prompt_runs.command, [*arguments[:-4], '--objects', str(tmp_path)])
    assert wrong.exit_code == 1
    assert 'INDEX.csv' in wrong.output


def test_masks(data, tmp_path):
    arguments = ['--out', str(tmp_path), '--profile', '', '--frames', str(data / 'frames')]
    arguments += ['--objects', str(data / 'objects'), '--leave-out', 'b', '--scenes', '3']
    arguments += [
        '--drives',
        '0',
        '--validation',
        '2',
        '--head-steps',
        '1',
        '--prompts-steps',
        '1',
    ]
    result = run(masks, arguments)
    assert result.exit_code == 0, result.output
    for name in ('mask_head', 'light_prompts'):
        assert (tmp_path / f'{name}.safetensors').is_file()
        assert 'validation' in (tmp_path / f'{name}.md').read_text()
    wrong = run(masks, [*arguments[:6], '--objects', str(data / 'frames')])
    assert wrong.exit_code == 1
    assert 'has no column' in wrong.output
    assert 'Traceback' not in wrong.output
