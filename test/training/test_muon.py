# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Muon against torch's own and against singular values; a run with it resumes exactly."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_perception.training.checkpointing import checkpoint_paths
from ood_perception.training.muon import Muon, is_matrix, orthogonal
from ood_perception.training.trainer import Trainer

from tiny_run import SETTINGS, TinySet, TinyTask


@pytest.mark.parametrize('shape', [(12, 20), (20, 12), (3, 500), (16, 16)])
def test_singular_values_come_near_one_and_vectors_stay(shape):
    matrix = torch.randn(shape, generator=torch.manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonal(matrix) @ v.T
    assert (inside.diag() > 0.6).all()
    assert (inside.diag() < 1.25).all()
    assert (inside - inside.diag().diag()).abs().max() < 1e-3


def test_a_gradient_of_zero_changes_nothing():
    assert not orthogonal(torch.zeros(4, 12)).any()


def test_what_is_a_matrix():
    assert is_matrix(nn.Conv2d(16, 8, 1).weight)
    assert is_matrix(nn.Conv2d(2, 8, 3).weight)
    assert is_matrix(nn.Linear(10, 3).weight)
    assert not is_matrix(nn.Conv2d(16, 16, 3, groups=16).weight)
    assert not is_matrix(nn.Conv2d(16, 2, 1).weight)
    assert not is_matrix(nn.BatchNorm2d(64).weight)


def test_steps_are_those_of_torch():
    """Torch's Muon, which takes 2-D weights only and computes in bfloat16, and its AdamW."""
    torch.manual_seed(0)
    mine = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    flat = nn.Parameter(mine[0].weight.detach().flatten(1).clone())
    others = [p.detach().clone().requires_grad_() for p in mine.parameters()][1:]
    optimizer = Muon(mine.parameters(), lr=1e-2, weight_decay=0.1)
    oracles = [
        torch.optim.Muon([flat], lr=1e-2, weight_decay=0.1, adjust_lr_fn='match_rms_adamw'),
        torch.optim.AdamW(others, lr=1e-2, weight_decay=0.1),
    ]
    start = flat.detach().clone()
    for _ in range(5):
        mine(torch.randn(2, 3, 6, 6)).square().sum().backward()
        flat.grad = mine[0].weight.grad.flatten(1).clone()
        for other, parameter in zip(others, list(mine.parameters())[1:], strict=True):
            other.grad = parameter.grad.clone()
        for each in (optimizer, *oracles):
            each.step()
            each.zero_grad()
    moved, expected = mine[0].weight.detach().flatten(1) - start, flat.detach() - start
    assert (moved - expected).norm() < 0.02 * expected.norm()
    for other, parameter in zip(others, list(mine.parameters())[1:], strict=True):
        torch.testing.assert_close(parameter, other)


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
