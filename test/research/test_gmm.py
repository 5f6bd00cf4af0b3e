# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Training of the GMM head against the official numbers and an independent Sinkhorn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import nn
from torch.distributions import Normal

from ood_perception.frames.resize import upsample
from research.gmm import (
    GmmMemory,
    GmmSettings,
    component_log_likelihood,
    gmm_training_step,
    sinkhorn,
)
from research.losses import cross_entropy
from research.segmentor import known_target

GOLDEN = Path(__file__).parent.parent / 'golden' / 'gmm_head_small.pt'


class Head(nn.Module):
    """The parts of a GMM head that training touches, under the official names."""

    def __init__(self, k: int, m: int, d: int) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.randn(k, m, d), requires_grad=False)
        self.diagonal = nn.Parameter(torch.ones(k, m, d), requires_grad=False)
        self.feat_norm = nn.LayerNorm(d)
        self.mask_norm = nn.LayerNorm(k)


def load(module: nn.Module, state: dict) -> None:
    module.load_state_dict({k: v for k, v in state.items() if k in module.state_dict()})


@pytest.fixture
def golden():
    return torch.load(GOLDEN, weights_only=False)


@pytest.fixture
def step(golden):
    train = golden['train']
    head = Head(4, 3, 16)
    memory = GmmMemory(4, 3, 16, GmmSettings(update_interval=1, memory_size=32))
    load(head, train['state_before'])
    load(memory, train['state_before'])
    x = golden['x'].clone().requires_grad_()
    logits, contrast = gmm_training_step(head, memory, x, train['labels'])
    return head, memory, x, logits, contrast


def test_outputs_equal_the_official_ones(golden, step):
    train, (_, _, _, logits, (contrast, targets)) = golden['train'], step
    torch.testing.assert_close(logits, train['logits'], rtol=0, atol=2e-5)
    torch.testing.assert_close(contrast, train['contrast_logits'], rtol=0, atol=2e-5)
    wanted = train['contrast_targets'].long()
    assert torch.equal(targets, wanted.masked_fill(wanted == 255, -1))
    assert (targets == -1).any()  # void took part
    assert (targets >= 0).any()


def test_losses_and_gradient_equal_the_official_ones(golden, step):
    train, (_, _, x, logits, contrast) = golden['train'], step
    label = train['labels']
    ce = cross_entropy(upsample(logits, tuple(label.shape[-2:])), known_target(label))
    cc = cross_entropy(*contrast, ignore=-1)
    assert ce.item() == pytest.approx(train['ce_upsampled'], abs=1e-5)
    assert cc.item() == pytest.approx(train['ce_contrast'], abs=1e-5)
    (ce + 0.01 * cc).backward()
    torch.testing.assert_close(x.grad, train['grad_x'], rtol=1e-3, atol=5e-7)


def test_statistics_and_memory_equal_the_official_ones(golden, step):
    head, memory = step[:2]
    before, after = golden['train']['state_before'], golden['train']['state_after']
    state = {**head.state_dict(), **memory.state_dict()}
    changed = 0
    for name in ('means', 'diagonal', 'queue', 'queue_ptr', 'iteration_counter'):
        torch.testing.assert_close(state[name], after[name], rtol=0, atol=1e-5)
        changed += not torch.equal(before[name], after[name])
    assert changed == 5


@pytest.mark.parametrize('shape', [(1, 5), (2, 3), (37, 5), (400, 5), (64, 1)])
def test_sinkhorn_equals_a_log_domain_float64_one(shape):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=shape)
    scores /= np.abs(scores).max()
    n, m = shape
    log_plan = scores.T / 0.05
    for _ in range(3):
        log_plan = log_plan - logsumexp(log_plan, axis=1, keepdims=True) - np.log(m)
        log_plan = log_plan - logsumexp(log_plan, axis=0, keepdims=True) - np.log(n)
    wanted = np.exp(log_plan + np.log(n)).T
    got = sinkhorn(torch.from_numpy(scores).float())
    assert np.abs(got.double().numpy() - wanted).max() <= 1e-5
    np.testing.assert_allclose(got.sum(1).numpy(), 1, atol=1e-5)


def test_sinkhorn_shares_equally_when_iterated():
    got = sinkhorn(torch.rand(300, 5) * 2 - 1, iterations=500)
    torch.testing.assert_close(got.mean(0), torch.full((5,), 0.2), rtol=0, atol=2e-3)


def test_sinkhorn_survives_ties_and_extremes():
    tied = sinkhorn(torch.zeros(7, 5))
    torch.testing.assert_close(tied, torch.full((7, 5), 0.2))
    assert torch.isfinite(sinkhorn(torch.tensor([[1.0, -1.0]] * 4, dtype=torch.float32))).all()


def test_log_likelihood_equals_torch_distributions():
    x = torch.randn(9, 6, dtype=torch.float64)
    means = torch.randn(3, 2, 6, dtype=torch.float64)
    deviations = torch.rand(3, 2, 6, dtype=torch.float64) + 0.1
    wanted = Normal(means, deviations).log_prob(x[:, None, None]).sum(-1)
    torch.testing.assert_close(component_log_likelihood(x, means, deviations), wanted)


def test_log_likelihood_gradient_by_finite_differences():
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    means = torch.randn(2, 2, 4, dtype=torch.float64)
    deviations = torch.rand(2, 2, 4, dtype=torch.float64) + 0.2
    assert torch.autograd.gradcheck(lambda v: component_log_likelihood(v, means, deviations), (x,))


def test_memory_is_a_ring_and_thins_evenly():
    memory = GmmMemory(1, 2, 3, GmmSettings(memory_size=5, max_samples=4))
    start = memory.queue[0].clone()
    memory.write(1, torch.arange(9.0).repeat(3, 1).T + 10)  # 9 features -> 0, 2, 5, 8
    assert memory.queue[1, 0, :4].tolist() == [10, 12, 15, 18]
    memory.write(1, torch.full((2, 3), -1.0))
    assert memory.queue[1, 0].tolist() == [-1, 12, 15, 18, -1]
    assert memory.queue_ptr.tolist() == [0, 1]
    memory.write(0, torch.empty(0, 3))
    assert torch.equal(memory.queue[0], start)


def test_update_waits_for_its_interval():
    torch.manual_seed(0)
    head, memory = Head(2, 2, 4), GmmMemory(2, 2, 4, GmmSettings(update_interval=3, memory_size=8))
    x, label = torch.randn(1, 4, 3, 3), torch.randint(0, 2, (1, 6, 6))
    changed = []
    for _ in range(7):
        before = head.diagonal.clone()
        gmm_training_step(head, memory, x, label)
        changed.append(not torch.equal(before, head.diagonal))
    assert changed == [True, False, False, True, False, False, True]


def test_all_void_leaves_the_statistics_alone():
    head, memory = Head(2, 2, 4), GmmMemory(2, 2, 4, GmmSettings(update_interval=1, memory_size=8))
    queue, diagonal = memory.queue.clone(), head.diagonal.clone()
    _, (logits, targets) = gmm_training_step(
        head, memory, torch.randn(1, 4, 3, 3), torch.full((1, 3, 3), 255)
    )
    assert cross_entropy(logits, targets, ignore=-1).item() == 0
    assert torch.equal(queue, memory.queue)
    assert torch.equal(diagonal, head.diagonal)
