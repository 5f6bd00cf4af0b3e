# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The trainer: exact resume, accumulation, two processes, broken checkpoints, bad losses."""

from __future__ import annotations

import csv
import dataclasses
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_training.checkpointing import (
    TrainingError,
    checkpoint_paths,
    load_latest,
    save_checkpoint,
)
from ood_training.trainer import Trainer

from tiny_run import SETTINGS, TinySet, TinyTask

HERE = Path(__file__).parent


def train(folder: Path, task: TinyTask | None = None, **changes) -> Trainer:
    torch.set_num_threads(1)
    settings = dataclasses.replace(SETTINGS, **changes)
    trainer = Trainer(task or TinyTask(), TinySet(), settings, folder)
    trainer.fit()
    return trainer


def environment() -> dict[str, str]:
    root = str(HERE.parent.parent)
    return {**os.environ, 'PYTHONPATH': root, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}


def logged(folder: Path, kind: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of one number, in order; of what was done twice the last."""
    found = {}
    for version in sorted((folder / 'log').iterdir()):
        with (version / 'metrics.csv').open(newline='') as file:
            for row in csv.DictReader(file):
                if value := row.get(f'{kind}/{name}'):
                    found[int(row['step'])] = float(value)
    return sorted(found.items())


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    return train(folder).task.state_dict(), folder


def test_loss_falls_and_the_log_is_complete(whole):
    losses = logged(whole[1], 'train', 'loss')
    assert [step for step, _ in losses] == list(range(1, 21))
    assert losses[-1][1] < losses[0][1]


def test_worker_count_changes_nothing(whole, tmp_path):
    assert equal(train(tmp_path, workers=2).task.state_dict(), whole[0])


@pytest.mark.slow
def test_kill_9_and_resume_gives_the_same_weights(whole, tmp_path):
    command = [sys.executable, str(HERE.parent / 'tiny_run.py'), str(tmp_path)]
    process = subprocess.Popen([*command, 'sleep=0.1'], env=environment())
    deadline = time.monotonic() + 100
    while not checkpoint_paths(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(random.uniform(0, 1.0))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / 'final.pt').exists()
    state, _ = load_latest(tmp_path)
    assert 0 < state['step'] < 20
    assert equal(train(tmp_path).task.state_dict(), whole[0])
    # The logs are those of one run, too.
    for name in ('loss', 'lr'):
        resumed = logged(tmp_path, 'train', name)
        assert resumed == logged(whole[1], 'train', name)


def test_a_broken_checkpoint_is_refused_and_the_previous_used(whole, tmp_path, caplog):
    train(tmp_path, steps=14, lr_end=SETTINGS.lr_end, schedule='constant')
    newest = checkpoint_paths(tmp_path)[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    state, path = load_latest(tmp_path)
    assert state['step'] == 12
    assert path != newest
    assert newest.name in caplog.text
    assert 'checksum' in caplog.text
    newest.write_bytes(b'')
    resumed = train(tmp_path, schedule='constant').task.state_dict()
    other = tmp_path / 'other'
    assert equal(resumed, train(other, schedule='constant').task.state_dict())
    for path in checkpoint_paths(tmp_path):
        path.write_bytes(b'nothing')
    with pytest.raises(TrainingError, match='all 2 checkpoints are broken'):
        load_latest(tmp_path)


def test_only_the_newest_checkpoints_stay(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, step, {'step': step})
    assert [p.name for p in checkpoint_paths(tmp_path)] == [
        'step_000000003.ckpt',
        'step_000000004.ckpt',
    ]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_a_full_disk_is_named_and_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {'step': 1})
    opened = Path.open

    def full(self, mode='r', **kwargs):
        return opened(Path('/dev/full') if self.suffix == '.tmp' else self, mode, **kwargs)

    monkeypatch.setattr(Path, 'open', full)
    with pytest.raises(TrainingError, match=r'step_000000002.ckpt.*No space left'):
        save_checkpoint(tmp_path, 2, {'step': 2})
    monkeypatch.undo()
    assert load_latest(tmp_path)[0] == {'step': 1}
    assert not list(tmp_path.glob('.*'))


def test_accumulation_equals_the_larger_batch(tmp_path):
    kwargs = {'ema': 0.0, 'steps': 8}
    one = train(tmp_path / 'one', TinyTask(dropout=0), batch_size=4, **kwargs)
    two = train(tmp_path / 'two', TinyTask(dropout=0), batch_size=2, accumulate=2, **kwargs)
    for a, b in zip(one.task.net.parameters(), two.task.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    curves = [logged(t.folder, 'train', 'loss') for t in (one, two)]
    assert [v for _, v in curves[0]] == pytest.approx([v for _, v in curves[1]], rel=1e-5)


@pytest.mark.slow
def test_two_processes_follow_the_curve_of_one_with_the_summed_batch(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    options = ['dropout=0', 'ema=0.0', 'steps=8']
    script = str(HERE.parent / 'tiny_run.py')
    command = [
        sys.executable,
        script,
        str(tmp_path / 'two'),
        'devices=2',
        'batch_size=2',
        *options,
    ]
    torchrun = {'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port)}
    torchrun |= {'TORCHELASTIC_RUN_ID': 'test', 'LOCAL_WORLD_SIZE': '2', 'GROUP_RANK': '0'}
    processes = [
        subprocess.Popen(
            command, env={**environment(), **torchrun, 'RANK': str(i), 'LOCAL_RANK': str(i)}
        )
        for i in range(2)
    ]
    assert [process.wait(200) for process in processes] == [0, 0]
    one = train(tmp_path / 'one', TinyTask(dropout=0), batch_size=4, ema=0.0, steps=8)
    two = torch.load(tmp_path / 'two' / 'final.pt', weights_only=True)
    for name, value in one.task.net.state_dict(prefix='net.').items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6)
    curves = [logged(tmp_path / n, 'train', 'loss') for n in ('one', 'two')]
    assert len(curves[0]) == 8
    assert [v for _, v in curves[0]] == pytest.approx([v for _, v in curves[1]], rel=1e-5)


def test_nan_stops_with_the_images_and_a_saved_state(tmp_path):
    with pytest.raises(TrainingError, match=r'step 5: the loss is .*nan.*image \d+ of epoch'):
        train(tmp_path, TinyTask(nan_at=5))
    state, _ = load_latest(tmp_path)
    assert state['step'] == 5
    assert all(torch.isfinite(v).all() for v in state['task'].values())


def test_frozen_state_is_not_stored_and_not_changed(whole):
    state, _ = load_latest(whole[1])
    assert not any(name.startswith('stem.') for name in state['task'])
    assert torch.equal(whole[0]['stem.weight'], TinyTask().stem.weight)


@pytest.mark.parametrize(
    ('monitor', 'best'), [('size', max), ('-size', min), ('size loss', min), ('site fpr95', min)]
)
def test_best_weights_are_kept(tmp_path, monkeypatch, monitor, best):
    name, validate = monitor.removeprefix('-'), TinyTask.validate
    monkeypatch.setattr(TinyTask, 'validate', lambda task: {name: validate(task)['size']})
    trainer = train(tmp_path, monitor=monitor, validate_every=5)
    sizes = dict(logged(tmp_path, 'val', name))
    assert len(set(sizes.values())) == 4
    assert trainer.best[name] == pytest.approx(best(sizes.values()))
    assert trainer.task.validate()[name] == pytest.approx(best(sizes.values()))


@pytest.mark.parametrize('precision', ['bf16-mixed'])
def test_mixed_precision_trains(tmp_path, precision):
    train(tmp_path, precision=precision, steps=10)
    losses = logged(tmp_path, 'train', 'loss')
    assert losses[-1][1] < losses[0][1]


@pytest.mark.parametrize(
    ('tiles', 'accelerator', 'wanted'),
    [(True, 'cpu', 'bf16-mixed'), (False, 'cpu', '32-true'), (True, 'gpu', '32-true')],
)
def test_automatic_precision_is_that_of_the_cpu(monkeypatch, tiles, accelerator, wanted):
    monkeypatch.setattr('ood_training.settings.has_bfloat16_tiles', lambda: tiles)
    settings = dataclasses.replace(SETTINGS, precision='auto', accelerator=accelerator)
    assert settings.for_this_machine() == dataclasses.replace(settings, precision=wanted)
    named = dataclasses.replace(settings, precision='16-mixed')
    assert named.for_this_machine() == named


def test_the_record_says_which_precision_it_was(tmp_path):
    trainer = train(tmp_path, precision='auto', accelerator='cpu', steps=1)
    assert load_latest(tmp_path)[0]['settings']['precision'] in ('32-true', 'bf16-mixed')
    assert trainer.settings.precision != 'auto'


def test_changed_settings_are_refused(tmp_path):
    train(tmp_path, steps=3)
    with pytest.raises(TrainingError, match=r'lr 0.01 -> 0.5'):
        train(tmp_path, lr=0.5)


def test_a_checkpoint_that_trained_other_parameters_is_refused(tmp_path):
    train(tmp_path, steps=3)
    task = TinyTask()
    task.net[0].bias.requires_grad_(False)
    with pytest.raises(TrainingError, match=r'step_0+3\.ckpt: trains other parameters'):
        train(tmp_path, task)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'schedule': 'wild'}, 'schedule: expected one of'),
        ({'steps': 0}, 'steps: expected 1 or more, got 0'),
        ({'lr': float('nan')}, 'lr: expected'),
        ({'ema': 1.0}, 'ema: expected'),
        ({'monitor': 'aps'}, "no 'aps' among size"),
    ],
)
def test_wrong_settings_are_named(tmp_path, changes, message):
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, **{'steps': 2, **changes})


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(TrainingError, match='empty'):
        Trainer(TinyTask(), TinySet(0), SETTINGS, tmp_path)
