# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""int8 backbone: rounding as the paper defines it, SAME padding, what stays in float32."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ood_perception.models.compact import build_compact
from ood_perception.models.efficientnet_lite import SameConv
from ood_perception.models.int8 import Int8Conv, quantised, shipped_ranges

torch.set_num_threads(1)


def rounded(x: np.ndarray, scale: float, zero: int, low: int, high: int) -> np.ndarray:
    """Equation 1 of Jacob et al.: real = scale (quantised - zero)."""
    steps = np.clip(np.round(x / scale) + zero, low, high)
    return scale * (steps - zero)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [(7, 8), (8, 7)])
@torch.inference_mode()
def test_a_convolution_rounds_input_and_weight(stride: int, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = SameConv(3, 4, 3, stride=stride, bias=False)
    norm = nn.BatchNorm2d(4).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.copy_(torch.rand(4, generator=generator) + 0.5)
    x = torch.randn(2, 3, *size, generator=generator)
    got = Int8Conv(conv, norm, -2.0, 3.1)(x)
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).numpy()
    weight = conv.weight.numpy() * factor[:, None, None, None]
    scales = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
    other = SameConv(3, 4, 3, stride=stride, bias=False)
    other.weight.copy_(torch.from_numpy(rounded(weight, scales, 0, -128, 127)))
    scale = 5.1 / 255
    inner = rounded(x.numpy(), scale, round(2.0 / scale), 0, 255).astype(np.float32)
    bias = norm.bias - norm.running_mean * torch.from_numpy(factor)
    want = other(torch.from_numpy(inner)) + bias[:, None, None]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(('low', 'high'), [(0.0, 0.0), (float('nan'), 1.0), (0.0, float('inf'))])
def test_a_range_without_extent_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match='low < high, got'):
        Int8Conv(nn.Conv2d(3, 4, 3), None, low, high)


def test_ranges_of_another_backbone_are_refused() -> None:
    with pytest.raises(ValueError, match='no convolution 7'):
        quantised(nn.Sequential(nn.Conv2d(3, 4, 3)), {'7': (0.0, 1.0)})


@torch.inference_mode()
def test_the_compact_network_keeps_its_first_layers_and_heads() -> None:
    network = build_compact().eval()
    twin = network.int8()
    ranges = shipped_ranges()
    convs = [n for n, m in network.backbone.named_modules() if isinstance(m, nn.Conv2d)]
    mine = [n for n, m in twin.backbone.named_modules() if isinstance(m, Int8Conv)]
    assert mine == [name for name in convs if name in ranges]
    assert set(ranges) < set(convs)
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before, after = network.backbone(images), twin.backbone(images)
    assert torch.equal(before[0], after[0])  # stride 2, where the smallest things are
    for a, b in zip(before[1:], after[1:], strict=True):
        assert not torch.equal(a, b)
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.97
    for key, value in network.fpn.state_dict().items():
        assert torch.equal(twin.fpn.state_dict()[key], value)


def test_observed_ranges_hold_every_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / 'benchmarks'))
    observe = importlib.import_module('int8').observe
    backbone = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU6(), nn.Conv2d(2, 1, 1))
    backbone[0].weight.data.fill_(10.0)
    batches = [torch.full((1, 3, 4, 4), value) for value in (-0.5, 0.25)]
    assert observe(backbone, batches) == {'0': (-0.5, 0.25), '2': (0.0, 6.0)}
    observe(backbone, batches)
    assert not backbone[0]._forward_pre_hooks
