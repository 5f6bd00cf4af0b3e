# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The shape that the small networks share: of the detection head and of the masks stage."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from types import MappingProxyType
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from ood_perception.models.int8 import Ranges

Net = TypeVar('Net', bound=nn.Module)


class SmallNetwork(nn.Module):
    """
    A network from one tensor (N, ...) to one, row by row: another engine may run it.

    Attributes:
        rounds: whether bfloat16 is exact enough for it, on a CPU with matrix units.
        ranges: of its convolutions, with which it may run in int8, see `models.int8`.

    """

    rounds = False
    ranges: Ranges = MappingProxyType({})


class UNetwork(nn.Module):
    """
    Down to coarse maps and up again, with a way across at each size (U-Net, arXiv 1505.04597).

    Args:
        stem: makes `widths[0]` channels of the input.
        widths: channels after the stem, and after each halving of the size.

    """

    def __init__(self, stem: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = stem
        self.down = nn.ModuleList(
            nn.Sequential(conv_bn_relu(a, b, 2), conv_bn_relu(b, b))
            for a, b in itertools.pairwise(widths)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(c, widths[0], 1) for c in widths)
        self.up = nn.ModuleList(conv_bn_relu(widths[0], widths[0]) for _ in widths)

    def maps(self, x: Tensor, beside: Sequence[Tensor] = ()) -> Tensor:
        """
        Bring the stem's input to `widths[0]` channels of the stem's size.

        `beside` are maps (B, widths[i], h_i, w_i) that are added on the way down, none or all.
        """
        levels: list[Tensor] = []
        for i, stage in enumerate((self.stem, *self.down)):
            level = stage(levels[-1] if levels else x)
            levels.append(level + beside[i] if beside else level)
        top: Tensor = self.up[-1](self.lateral[-1](levels[-1]))
        for i in range(len(levels) - 2, -1, -1):
            coarse = F.interpolate(top, levels[i].shape[2:], mode='nearest')
            top = self.up[i](self.lateral[i](levels[i]) + coarse)
        return top


def conv_bn_relu(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    """Convolution of size x size to 1 / stride of the map's size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, (size - stride + 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def fuse_conv_bn(network: Net) -> Net:
    """Copy a network for inference: batch norms fused into convolutions, channels last."""
    network = copy.deepcopy(network).eval()
    for block in network.modules():
        if isinstance(block, nn.Sequential) and isinstance(block[0], nn.Conv2d):
            convolution, norm = block[0], block[1]
            assert isinstance(norm, nn.BatchNorm2d)
            block[0] = fuse_conv_bn_eval(convolution, norm)
            block[1] = nn.Identity()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
