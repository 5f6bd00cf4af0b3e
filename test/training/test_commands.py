# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The commands of `ood train` run to their end at tiny size, from the weights of the package."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_perception import engines
from ood_perception.checkpoints import resolve
from ood_perception.cli.train import app
from ood_perception.profile import CalibrationConfig, Profile, find_profile
from ood_training.calibrate import write_calibration

torch.set_num_threads(1)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """Frames of a site without labels, labelled ones for validation, and cut-outs."""
    root = tmp_path_factory.mktemp('site')
    rng = np.random.default_rng(0)
    for folder in ('frames', 'labelled/images', 'labelled/labels', 'objects'):
        (root / folder).mkdir(parents=True)
    for i in range(3):
        image = rng.integers(90, 120, (64, 80, 3)).astype(np.uint8)
        Image.fromarray(image).save(root / 'frames' / f'{i}.png')
        label = np.zeros((64, 80), np.uint8)
        label[20:40, 30:50] = 1
        image[label > 0] = (255, 0, 200)
        Image.fromarray(image).save(root / 'labelled' / 'images' / f'{i}.png')
        Image.fromarray(label).save(root / 'labelled' / 'labels' / f'{i}.png')
        rgba = rng.integers(0, 256, (30, 20, 4)).astype(np.uint8)
        rgba[..., 3] = 255
        Image.fromarray(rgba).save(root / 'objects' / f'{i}.png')
    return root


def train_uem(site, out, *more):
    arguments = ['uem', '--data', str(site / 'frames'), '--objects', str(site / 'objects')]
    for change in (
        'steps=2', 'batch_size=2', 'workers=0', 'warmup_steps=1', 'options.size=[64, 80]',
    ):  # fmt: skip
        arguments += ['--set', change]
    return CliRunner().invoke(app, [*arguments, '--out', str(out), *more])


def test_a_site_without_labels_trains_the_uem_of_the_shipped_network(site, tmp_path):
    validate = ['--val', str(site / 'frames'), '--val-objects', str(site / 'objects')]
    result = train_uem(site, tmp_path, *validate)
    assert result.exit_code == 0, result.output
    path = tmp_path / 'uem' / 'weights.yaml'
    first = load_file(resolve('package:compact.safetensors'))
    second = load_file(path.with_suffix('.safetensors'))
    changed = {k for k in second if not torch.equal(first[k], second[k])}
    assert changed
    assert all(k.startswith('uem.') for k in changed)
    profile, shipped = Profile.load(path), Profile.load('compact')
    assert profile.classes == shipped.classes
    assert profile.score == shipped.score
    assert profile.calibration.slope > 0
    card = path.with_suffix('.md').read_text()
    for text in ('ap', 'sha256', 'unknown_weight: 3.0', 'calibration ece'):
        assert text in card
    # The same command again trains nothing and gives the same.
    before = path.with_suffix('.safetensors').read_bytes()
    assert train_uem(site, tmp_path, *validate).exit_code == 0
    assert path.with_suffix('.safetensors').read_bytes() == before


def test_labelled_unknowns_need_no_objects_to_validate(site, tmp_path):
    labelled = ['--val', str(site / 'labelled'), '--label-map', 'benchmark']
    assert train_uem(site, tmp_path / 'labelled', *labelled).exit_code == 0
    result = train_uem(site, tmp_path / 'none', '--val', str(site / 'frames'))
    assert result.exit_code == 1
    assert '--val-objects' in result.output


def test_calibrate_writes_another_profile_and_leaves_its_own(site, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, 'candidates', lambda *_: ['eager'])  # spares measuring engines
    target = tmp_path / 'new' / 'calibrated.yaml'
    own = find_profile('compact')
    before = own.read_bytes()
    labelled = ['--data', str(site / 'labelled'), '--label-map', 'benchmark', '--device', 'cpu']
    result = CliRunner().invoke(app, ['calibrate', 'compact', '--out', str(target), *labelled])
    assert result.exit_code == 0, result.output
    assert 'ece' in result.output
    old, new = Profile.load(own), Profile.load(target)
    assert new.calibration != old.calibration
    assert dataclasses.replace(new, calibration=old.calibration) == old
    assert own.read_bytes() == before
    assert CliRunner().invoke(app, ['calibrate', 'compact', *labelled]).exit_code == 2


CALIBRATION = CalibrationConfig('platt', slope=1.5, offset=-2.0)
PROFILES = {
    'block': 'calibration:\n  kind: platt\n  slope: 0.3  # old\n\n  offset: 1.0\n',
    'flow': 'calibration: {kind: platt, slope: 0.3}\n',
    'none': '',
}


@pytest.mark.parametrize('position', ['first', 'middle', 'last'])
@pytest.mark.parametrize('name', PROFILES)
def test_comments_and_order_of_a_profile_stay(tmp_path, name, position):
    head = '# A comment.\nname: x  # mine\n'
    tail = 'segmentor: {name: compact}\nscore: {name: llr}\n\n# The classes.\nclasses: [a, b]\n'
    parts = {
        'first': [PROFILES[name], head, tail],
        'middle': [head, PROFILES[name], tail],
        'last': [head, tail, PROFILES[name].rstrip('\n')],
    }
    path = tmp_path / 'profile.yaml'
    path.write_text(''.join(parts[position]))
    old = Profile.load(path)
    write_calibration(path, path, CALIBRATION)
    text = path.read_text()
    assert Profile.load(path) == dataclasses.replace(old, calibration=CALIBRATION)
    assert text.count('calibration') == 1
    for line in ('# A comment.', 'name: x  # mine', '# The classes.', 'classes: [a, b]'):
        assert line in text.splitlines()


@pytest.mark.parametrize('name', ['compact', 'compact_novelty', 'dinov2_uem_gg'])
def test_shipped_profiles_can_be_calibrated(tmp_path, name):
    source = tmp_path / 'source.yaml'
    shutil.copy(find_profile(name), source)
    write_calibration(source, tmp_path / 'new.yaml', CALIBRATION)
    old, new = Profile.load(source), Profile.load(tmp_path / 'new.yaml')
    assert new == dataclasses.replace(old, calibration=CALIBRATION)
    comments = {line for line in source.read_text().splitlines() if line.startswith('#')}
    assert comments <= set((tmp_path / 'new.yaml').read_text().splitlines())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['uem', '--data', 'camvid:/nowhere', '--objects', '.'], '/nowhere: no such file'),
        (['uem', '--data', '.', '--objects', '/nowhere'], 'no images'),
        (['uem', '--data', '.', '--objects', '.', '--set', 'step=3'], "did you mean 'steps'"),
        (['uem', '--data', '.', '--objects', '.', '--preset', 'y'], "no preset named 'y'"),
        (['calibrate', 'nothing', '--data', '.'], "no profile named 'nothing'"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*arguments, '--out', 'x'])
    assert result.exit_code == 1
    assert message in result.output
    assert 'Traceback' not in result.output
