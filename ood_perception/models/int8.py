# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Networks in int8: convolutions between QuantizeLinear and DequantizeLinear.

Activations in 8 bits with a measured range for each convolution's input, weights in 8 bits per
output channel (Jacob et al., "Quantization and Training of Neural Networks for
Efficient-Integer-Arithmetic-Only Inference", CVPR 2018, section 2). In PyTorch the rounding is
simulated in float32; an exported graph holds the pairs that a runtime turns into integer kernels.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ood_perception.models.efficientnet_lite import SameConv

RANGES = Path(__file__).resolve().parents[1] / 'weights' / 'int8_ranges.json'
"""Smallest and largest input of every convolution, as `benchmarks/int8.py --ranges` writes it."""

Ranges = Mapping[str, tuple[float, float]]  # convolution -> smallest and largest input


class Int8Conv(nn.Module):
    """
    A convolution whose input and weight are rounded to 8 bits, with the normalisation behind it.

    TensorFlow's SAME padding is kept. A range that is empty or not finite is a ValueError.
    """

    range: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, low: float, high: float):
        super().__init__()
        low, high = min(low, 0.0), max(high, 0.0)
        if not 0 < high - low < float('inf'):
            raise ValueError(f'range of an int8 input: expected low < high, got {low}, {high}')
        self.conv = copy.deepcopy(conv)
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            self.conv.weight, bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps,
                norm.weight, norm.bias,
            )  # fmt: skip
            self.conv.bias = bias
        self.scale = (high - low) / 255
        # what the convolution computes with are numbers; this tells two copies apart
        self.register_buffer('range', torch.tensor([low, high]))
        # 0 is one of the steps, so that padding is exact
        self.zero = round(-low / self.scale)
        scales = weight_scales(self.conv.weight.detach())
        self.register_buffer('scales', scales)
        self.register_buffer('zeros', torch.zeros_like(scales, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Float (B, C, h, w) to float, through 8 bits."""
        x = torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, 255)
        weight = torch.fake_quantize_per_channel_affine(
            self.conv.weight, self.scales, self.zeros, 0, -128, 127
        )
        conv, padding = self.conv, self.conv.padding
        if isinstance(conv, SameConv):
            x, padding = conv.pad_same(x)
        return F.conv2d(x, weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)


def weight_scales(weight: Tensor) -> Tensor:
    """
    Step of the 8-bit weights (O, I, kh, kw) of each output channel that no CPU sums wrongly: (O,).

    Without VNNI a CPU (`vpmaddubsw`) adds the products of two neighbouring input channels in 16
    bits, which saturate at 32767: two weights of one sign may be 128 together at an input of 255.
    """
    pairs = F.pad(weight, (0, 0, 0, 0, 0, weight.shape[1] % 2)).unflatten(1, (-1, 2))
    sums = torch.maximum(pairs.clamp(min=0).sum(2), -pairs.clamp(max=0).sum(2))
    # rounding adds up to half a step to each of the two, hence 127
    return sums.amax((1, 2, 3)).clamp_min(1e-12) / 127


def quantised(network: nn.Module, ranges: Ranges) -> nn.Module:
    """
    Copy of a network with convolutions in int8 and their batch normalisations folded into them.

    Those stand right behind the convolutions, which stay in float32 where they have no range. A
    range of a convolution that the network has not is a ValueError.
    """
    left = set(ranges)
    int8_copy = copy.deepcopy(network).eval()
    for name, parent in list(int8_copy.named_modules()):
        children = [*parent.named_children(), ('', nn.Identity())]
        for (key, child), (after, norm) in itertools.pairwise(children):
            path = f'{name}.{key}' if name else key
            if not isinstance(child, nn.Conv2d) or path not in ranges:
                continue
            left.discard(path)
            folded = norm if isinstance(norm, nn.BatchNorm2d) else None
            low, high = ranges[path]
            setattr(parent, key, Int8Conv(child, folded, low, high))
            if folded is not None:
                # the backbone's normalisation ends with the activation
                setattr(parent, after, getattr(folded, 'act', nn.Identity()))
    if left:
        raise ValueError(f'ranges: the network has no convolution {", ".join(sorted(left)[:3])}')
    return int8_copy.requires_grad_(False)


@torch.inference_mode()
def observed_ranges(
    network: nn.Module,
    batches: Iterable[Any],
    names: Callable[[str], object] = bool,
    run: Callable[[Any], object] | None = None,
) -> dict[str, tuple[float, float]]:
    """
    Smallest and largest input of those convolutions of a network whose names are asked for.

    `run` is called with each batch, and calls the network; None = the network itself.
    """
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str, x: Tensor) -> None:
        low, high = ranges.get(name, (0.0, 0.0))
        ranges[name] = (min(low, float(x.min())), max(high, float(x.max())))

    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: watch(name, inputs[0]))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and names(name)
    ]
    try:
        for batch in batches:
            (run or network)(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


def shipped_ranges(weights: str) -> dict[str, tuple[float, float]]:
    """Ranges of the network that has these weights of the package; empty for any others."""
    data = json.loads(RANGES.read_text(encoding='utf-8'))
    ranges = data['ranges'].get(weights, {})
    return {name: (float(low), float(high)) for name, (low, high) in ranges.items()}
