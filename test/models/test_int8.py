# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""int8 networks: rounding as the paper defines it, SAME padding, what stays in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ood_perception.models.compact import BACKBONE, INT8_HEADS, Compact
from ood_perception.models.efficientnet_lite import SameConv
from ood_perception.models.int8 import (
    Int8Conv,
    observed_ranges,
    quantised,
    shipped_ranges,
    weight_scales,
)

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
    first, second, third = weight.transpose(1, 0, 2, 3)
    together = np.where(
        first * second > 0, np.abs(first + second), np.maximum(*np.abs([first, second]))
    )
    largest = np.maximum(together, np.abs(third)).max((1, 2))
    scales = largest[:, None, None, None] / 127
    other = SameConv(3, 4, 3, stride=stride, bias=False)
    other.weight.copy_(torch.from_numpy(rounded(weight, scales, 0, -128, 127)))
    scale = 5.1 / 255
    inner = rounded(x.numpy(), scale, round(2.0 / scale), 0, 255).astype(np.float32)
    bias = norm.bias - norm.running_mean * torch.from_numpy(factor)
    want = other(torch.from_numpy(inner)) + bias[:, None, None]
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('shape', [(16, 8, 1, 1), (8, 5, 3, 3), (6, 1, 5, 5), (4, 2, 1, 1)])
@pytest.mark.parametrize('spread', [0.1, 1.0, 8.0])
def test_no_pair_of_products_overflows_16_bits(shape: tuple[int, ...], spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(shape, generator=generator) * spread).exp()
    weight *= torch.randint(0, 2, shape, generator=generator) * 2 - 1
    weight[0] = 0.0  # a channel that training switched off
    scales = weight_scales(weight)
    steps = (weight / scales[:, None, None, None]).round().numpy().astype(np.int64)
    steps = np.concatenate([steps, np.zeros_like(steps[:, : shape[1] % 2])], 1)
    # what vpmaddubsw adds at inputs of 0 or 255, whichever is worst
    for sign in (1, -1):
        products = 255 * np.clip(sign * steps, 0, None)
        assert (products[:, 0::2] + products[:, 1::2]).max() <= 32767
    used = np.abs(steps[1:]).reshape(shape[0] - 1, -1)
    assert used.max() == 127 or shape[1] > 1
    assert (used.max(1) >= 63).all()


@pytest.mark.parametrize(('low', 'high'), [(0.0, 0.0), (float('nan'), 1.0), (0.0, float('inf'))])
def test_a_range_without_extent_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match='low < high, got'):
        Int8Conv(nn.Conv2d(3, 4, 3), None, low, high)


def test_ranges_of_another_backbone_are_refused() -> None:
    with pytest.raises(ValueError, match='no convolution 7'):
        quantised(nn.Sequential(nn.Conv2d(3, 4, 3)), {'7': (0.0, 1.0)})


@pytest.mark.parametrize('seed', [0, 1])
@torch.inference_mode()
def test_what_the_compact_network_keeps_in_float32(seed: int) -> None:
    torch.manual_seed(seed)
    network = Compact().eval()
    for module in network.modules():  # as after a training: no statistics are those of the start
        if isinstance(module, nn.BatchNorm2d) and not module.running_mean.any():
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    images = torch.rand(2, 3, 64, 96) * 2 - 1
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    twin = network.int8(images)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(module._forward_pre_hooks for module in network.modules())
    ranges = shipped_ranges(BACKBONE)
    convs = {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    mine = {n for n, m in twin.named_modules() if isinstance(m, Int8Conv)}
    assert {n for n in mine if n.startswith('backbone.')} == {f'backbone.{n}' for n in ranges}
    assert {n for n in convs if INT8_HEADS.fullmatch(n)} == mine - {
        f'backbone.{n}' for n in ranges
    }
    assert len(mine - {f'backbone.{n}' for n in ranges}) == 21
    maps, rounded = network.backbone(images), twin.backbone(images)
    assert torch.equal(maps[0], rounded[0])  # stride 2, where the smallest things are
    for a, b in zip(maps[1:], rounded[1:], strict=True):
        assert not torch.equal(a, b)
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.97
    exact, other = network(images), twin(images)
    for a, b in ((exact.logits, other.logits), (exact.ood, other.ood)):
        assert not torch.equal(a, b)
        assert (a - b).std() < 0.25 * a.std()  # as an engine has to agree


def test_it_also_runs_where_gradients_are_recorded() -> None:
    network = Compact().eval()
    images = torch.rand(1, 3, 64, 96)
    twin = network.int8(images)
    with torch.no_grad():
        want = twin(images).ood
    torch.testing.assert_close(twin(images).ood, want)


@torch.inference_mode()
def test_ranges_are_those_of_the_inputs() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    batches = [torch.randn(2, 3, 8, 8) for _ in range(3)]
    found = observed_ranges(network, batches)
    assert list(found) == ['0', '2']
    assert found['0'] == (
        float(min(b.min() for b in batches)),
        float(max(b.max() for b in batches)),
    )
    inner = [network[:2](b) for b in batches]
    assert found['2'] == (0.0, float(max(b.max() for b in inner)))
    assert list(observed_ranges(network, batches, '2'.__eq__)) == ['2']
    assert not any(module._forward_pre_hooks for module in network.modules())
