# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Depthwise layers over grids of pixels are the dilated ones, forward and backward."""

from __future__ import annotations

import copy

import pytest
import torch

from ood_perception.models.compact import Compact, ContextBlock
from ood_training.depthwise import GridConv2d, interleaved, train_in_grids
from ood_training.parts import split

SIZES = [(12, 18), (13, 20), (5, 7), (1, 4)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('dilation', [2, 3, 6])
@pytest.mark.parametrize('kind', [torch.float32, torch.bfloat16])
def test_interleaved_equals_a_dilated_convolution(size, dilation, kind) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(
        8, 8, 3, padding=dilation, dilation=dilation, groups=8, bias=False, dtype=kind
    )
    x = torch.randn(2, 8, *size, dtype=kind).requires_grad_()
    direction = torch.randn(2, 8, *size, dtype=kind)
    got = interleaved(conv, x)
    found = torch.autograd.grad(got, (x, conv.weight), direction)
    # in double precision, since PyTorch's own gradient is wrong in bfloat16
    exact, wide = copy.deepcopy(conv).double(), x.detach().double().requires_grad_()
    wanted = exact(wide)
    gradients = torch.autograd.grad(wanted, (wide, exact.weight), direction.double())
    limit = 1e-5 if kind == torch.float32 else 2e-2
    for ours, true in zip((got, *found), (wanted, *gradients), strict=True):
        assert ours.shape == true.shape
        assert float((ours - true).abs().max()) <= limit * max(float(true.abs().max()), 1e-3)


def test_context_block_in_training_equals_evaluation_of_the_same_statistics() -> None:
    torch.manual_seed(0)
    slow, x = ContextBlock(16, dilation=3).train(), torch.randn(2, 16, 13, 20)
    block = copy.deepcopy(slow)
    train_in_grids(block)
    assert isinstance(block.dw[0], GridConv2d)
    with torch.no_grad():
        wanted = slow(x)
    torch.testing.assert_close(block(x).detach(), wanted, atol=1e-5, rtol=1e-5)


def test_training_in_bfloat16_gives_nearly_the_same_gradients() -> None:
    torch.manual_seed(0)
    block = ContextBlock(16, dilation=3)
    train_in_grids(block)
    x = torch.randn(2, 16, 12, 20)
    gradients = []
    for rounded in (False, True):
        block.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=rounded):
            block(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in block.parameters()])
    for exact, near in zip(*gradients, strict=True):
        assert float((near - exact).norm()) < 0.05 * float(exact.norm()) + 1e-3


def test_compact_is_trained_so_and_keeps_its_weights_and_answers() -> None:
    torch.manual_seed(0)
    model, images = Compact(pretrained=False).eval(), torch.randn(1, 3, 64, 96)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        wanted = model(images)
    split(model)
    with torch.no_grad():
        found = model(images)
    assert [type(block.dw[0]) is GridConv2d for block in model.uem.ctx] == [
        False, True, True, False,
    ]  # fmt: skip
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert torch.equal(found.ood, wanted.ood)
    # with gradients, too: over grids now
    torch.testing.assert_close(model(images).ood, wanted.ood, atol=1e-5, rtol=1e-5)
