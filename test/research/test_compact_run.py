# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The compact recipe from end to end, on a handful of tiny frames; and the card and profile."""

from __future__ import annotations

import csv
import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_perception.profile import Profile
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.presets import override
from research.averaging import average
from research.compact import CompactData, train_compact
from research.presets import PRESETS

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for split, names in (('train', 'ABCDX'), ('val', 'YZ')):
        for folder in ('images', 'labels'):
            (root / split / folder).mkdir(parents=True)
        for name in names:
            label = np.zeros((64, 80), np.uint8)  # sky, road, a car
            label[32:], label[40:56, 20:44], label[0] = 3, 8, 11
            image = np.stack([label * 20 + 30, 200 - label * 9, label * 5], -1)
            image = (image + rng.integers(0, 12, image.shape)).astype(np.uint8)
            Image.fromarray(image).save(root / split / 'images' / f'{name}1.png')
            Image.fromarray(label).save(root / split / 'labels' / f'{name}1.png')
    (root / 'objects' / 'rgba').mkdir(parents=True)
    rows = []
    for i in range(12):
        rgba = rng.integers(0, 256, (40, 30, 4)).astype(np.uint8)
        rgba[..., 3] = 255
        Image.fromarray(rgba).save(root / 'objects' / 'rgba' / f'{i}.png')
        row = {'file': f'rgba/{i}.png', 'coco_image_id': str(i), 'recommended': '1'}
        rows.append({**row, 'fill': '1.0', 'border_sides': ''})
    with (root / 'objects' / 'INDEX.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp('run')
    parts = CompactData(
        frames=f'camvid:{data / "train"}',
        val=f'camvid:{data / "val"}',
        objects=data / 'objects',
        leave_out='X',
        drives=0,
        sizes=((64, 80),),
    )
    changes = ['steps=2', 'batch_size=2', 'workers=0', 'warmup_steps=1']
    preset = dataclasses.replace(
        PRESETS['compact'],
        segmentor=override(PRESETS['compact'].segmentor, changes),
        uem=override(PRESETS['compact'].uem, changes),
    )
    return train_compact(parts, preset, folder, 'python -m research.compact'), preset, parts


def test_the_profile_is_ready_to_use(trained):
    from ood_perception.pipeline import Pipeline

    path, _, _ = trained
    profile = Profile.load(path)
    assert profile.segmentor.name == 'compact'
    assert len(profile.classes) == 11
    assert 'non-commercial' in profile.licence
    pipeline = Pipeline.from_profile(path, 'cpu', 'eager')
    (result,) = pipeline(np.zeros((64, 80, 3), np.uint8), wants={'heatmap', 'score'})
    assert result.heatmap.shape == (64, 80)
    assert np.isfinite(result.score).all()


def test_the_card_tells_how_it_was_made(trained):
    card = trained[0].with_suffix('.md').read_text()
    for text in (
        'pasted ap',
        'fpr95',
        'sha256',
        'python -m research.compact',
        'unknown_weight: 3.0',
    ):
        assert text in card
    assert 'non-commercial research use only' in card


def test_weights_hold_the_heads_only(trained):
    from safetensors.torch import load_file

    state = load_file(trained[0].with_suffix('.safetensors'))
    assert {name.split('.')[0] for name in state} == {'fpn', 'uem'}


def test_the_same_command_again_trains_nothing_and_gives_the_same(trained):
    path, preset, parts = trained
    before = path.with_suffix('.safetensors').read_bytes()
    path.unlink()
    train_compact(parts, preset, path.parent, 'python -m research.compact')
    assert path.with_suffix('.safetensors').read_bytes() == before
    assert Profile.load(path).calibration.slope != 0


def test_going_on_from_weights_changes_the_uem_and_names_the_start(trained, tmp_path):
    from safetensors.torch import load_file

    path, preset, parts = trained
    weights = path.with_suffix('.safetensors')
    on = dataclasses.replace(parts, weights=str(weights))
    preset = dataclasses.replace(preset, uem=override(preset.uem, ['seed=3', 'lr=0.01']))
    later = train_compact(on, preset, tmp_path)
    old, new = load_file(weights), load_file(later.with_suffix('.safetensors'))
    changed = {name for name in new if not torch.equal(old[name], new[name])}
    assert changed
    assert all(name.startswith('uem.') for name in changed)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digest in later.with_suffix('.md').read_text()
    assert not (tmp_path / 'segmentor').exists()
    # The same run again, finished, this time with a share of the start in its result.
    train_compact(dataclasses.replace(on, keep=0.25), preset, tmp_path)
    mean = load_file(later.with_suffix('.safetensors'))
    for name, value in mean.items():
        if value.dtype.is_floating_point:
            torch.testing.assert_close(value, 0.75 * new[name] + 0.25 * old[name])
        else:
            assert torch.equal(value, new[name])
    with pytest.raises(TrainingError, match='keep'):
        train_compact(dataclasses.replace(parts, keep=0.25), preset, tmp_path / 'none')


@pytest.mark.parametrize(
    ('share', 'state', 'message'),
    [
        (1.5, {'a': torch.ones(2)}, '1.5'),
        (0.5, {'a': torch.ones(3)}, 'a is missing or of another shape'),
        (0.5, {'b': torch.ones(2)}, 'a is missing or of another shape'),
    ],
)
def test_averages_of_what_does_not_fit_are_refused(share, state, message, tmp_path):
    from safetensors.torch import save_file

    start, trained = tmp_path / 'start.safetensors', tmp_path / 'trained.safetensors'
    save_file(state, start)
    save_file({'a': torch.zeros(2)}, trained)
    with pytest.raises(TrainingError, match=message):
        average(str(start), trained, share, tmp_path / 'mean.safetensors')
    assert not (tmp_path / 'mean.safetensors').exists()


def test_missing_weights_are_named_before_anything_is_made(trained, tmp_path):
    _, preset, parts = trained
    missing = dataclasses.replace(parts, weights=str(tmp_path / 'none.safetensors'))
    with pytest.raises(TrainingError, match=r'none\.safetensors'):
        train_compact(missing, preset, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
