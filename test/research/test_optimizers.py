# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Optimisers against the published steps, schedules by hand; a run with Muon resumes exactly."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_training.checkpointing import checkpoint_paths
from ood_training.settings import OPTIMIZERS, SCHEDULES, TrainSettings, create_schedule
from ood_training.trainer import Trainer
from research.optimizers import PaperSettings, is_matrix

from tiny_run import SETTINGS, TinySet, TinyTask


def test_what_is_a_matrix():
    assert is_matrix(nn.Conv2d(16, 8, 1).weight)
    assert is_matrix(nn.Conv2d(2, 8, 3).weight)
    assert is_matrix(nn.Linear(10, 3).weight)
    assert not is_matrix(nn.Conv2d(16, 16, 3, groups=16).weight)
    assert not is_matrix(nn.Conv2d(16, 2, 1).weight)
    assert not is_matrix(nn.BatchNorm2d(64).weight)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz iteration of Jordan et al., 2024, in float64: singular values come near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_kernels_move_as_muon_and_all_else_as_adamw(layout):
    """Against the published step, written out: torch computes it in bfloat16."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).to(memory_format=layout)
    settings = TrainSettings(optimizer='muon', lr=1e-2, weight_decay=0.1)
    optimizers = OPTIMIZERS['muon'](settings, list(net.parameters()))
    others = [p.detach().clone().requires_grad_() for p in net.parameters()][1:]
    adamw = torch.optim.AdamW(others, lr=1e-2, weight_decay=0.1)
    start = net[0].weight.detach().clone()
    wanted, momentum = start.double().flatten(1), torch.zeros(8, 27, dtype=torch.float64)
    for _ in range(5):
        net(torch.randn(2, 3, 6, 6)).square().sum().backward()
        gradient = net[0].weight.grad.double().flatten(1)
        momentum = momentum.lerp(gradient, 0.05)
        update = orthogonal(gradient.lerp(momentum, 0.95))
        wanted = wanted * (1 - 1e-2 * 0.1) - 1e-2 * 0.2 * 27**0.5 * update
        for other, parameter in zip(others, list(net.parameters())[1:], strict=True):
            other.grad = parameter.grad.clone()
        for each in (*optimizers, adamw):
            each.step()
        for each in optimizers:
            each.zero_grad()
        assert all(parameter.grad is None for parameter in net.parameters())
    moved, expected = net[0].weight.double() - start, wanted.view(8, 3, 3, 3) - start
    assert (moved - expected).norm() < 0.02 * expected.norm()
    for other, parameter in zip(others, list(net.parameters())[1:], strict=True):
        torch.testing.assert_close(parameter, other)


def rates(settings: TrainSettings, done: int = 0) -> list[float]:
    """Learning rates of the steps from `done` to the last, and the one after it."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], settings.lr)
    schedule = create_schedule(settings, optimizer, done)
    found = [optimizer.param_groups[0]['lr']]
    for _ in range(settings.steps - done):
        optimizer.step()
        schedule.step()
        found.append(optimizer.param_groups[0]['lr'])
    return found


def test_a_linear_schedule_rises_and_falls():
    found = rates(TrainSettings(steps=4000, lr=5e-4, lr_end=1e-7, warmup_steps=1500))
    assert found[0] == pytest.approx(0, abs=1e-12)
    assert found[750] == pytest.approx(2.5e-4, rel=1e-3)
    assert found[1500] == pytest.approx(5e-4)
    assert found[2750] == pytest.approx((5e-4 + 1e-7) / 2)
    assert found[4000] == pytest.approx(1e-7, rel=1e-3)


def test_a_schedule_of_steps_divides_by_ten_at_each_milestone():
    s2m = PaperSettings(
        steps=100,
        schedule='step',
        lr=0.0025,
        warmup_steps=20,
        warmup_factor=0.001,
        milestones=(60, 80),
    )
    found = rates(s2m)
    assert found[0] == pytest.approx(2.5e-6)
    assert found[10] == pytest.approx(0.0025 * (0.001 + 0.999 / 2))
    assert [found[i] for i in (20, 59)] == pytest.approx([0.0025] * 2)
    assert [found[i] for i in (60, 79)] == pytest.approx([0.00025] * 2)
    assert [found[i] for i in (80, 100)] == pytest.approx([0.000025] * 2)
    assert rates(dataclasses.replace(s2m, warmup_steps=0))[60] == pytest.approx(0.00025)


@pytest.mark.parametrize('warmup', [1, 30])
def test_one_cycle_rises_and_falls_as_cosines(warmup):
    cycle = TrainSettings(
        schedule='one_cycle', steps=100, warmup_steps=warmup, lr=1.0, lr_end=0.0, warmup_factor=0.1
    )
    found = rates(cycle)
    assert max(range(101), key=found.__getitem__) == warmup
    assert found[0] == pytest.approx(0.1)
    assert found[warmup] == pytest.approx(1)
    if warmup == 30:
        assert found[15] == pytest.approx(0.55)
        assert found[65] == pytest.approx(0.5)
    assert found[100] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('warmup', [0, 7])
def test_a_schedule_goes_on_where_it_was(schedule, warmup):
    settings = PaperSettings(
        steps=40, schedule=schedule, warmup_steps=warmup, warmup_factor=0.2, milestones=(15,)
    )
    whole = rates(settings)
    assert len(whole) == 41
    for done in (0, 3, 7, 8, 39, 40):
        assert rates(settings, done) == whole[done:]


def test_a_resumed_run_gives_the_same_weights(tmp_path):
    settings = dataclasses.replace(SETTINGS, optimizer='muon')

    def run() -> Trainer:
        torch.set_num_threads(1)
        trainer = Trainer(TinyTask(), TinySet(), settings, tmp_path)
        trainer.fit()
        return trainer

    whole = run().task.state_dict()
    last = checkpoint_paths(tmp_path)[-1]
    assert last.name == 'step_000000020.ckpt'
    last.unlink()
    again = run().task.state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert not torch.equal(whole['net.0.weight'], TinyTask().net[0].weight)
