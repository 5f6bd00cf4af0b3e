# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Dilated depthwise convolutions of training on a CPU, where PyTorch's own are slow or wrong."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GridConv2d(nn.Conv2d):
    """A dilated depthwise convolution that trains on a CPU as :func:`interleaved` computes it."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same."""
        if torch.is_grad_enabled() and x.device.type == 'cpu':
            return interleaved(self, x)
        return super().forward(x)


def train_in_grids(model: nn.Module) -> None:
    """Turn the dilated depthwise convolutions of a model into `GridConv2d`, in place."""
    for module in model.modules():
        if type(module) is nn.Conv2d and module.dilation[0] > 1 and module.groups > 1:
            module.__class__ = GridConv2d


def interleaved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """
    Compute a 3x3 depthwise convolution with dilation d as one without, over d x d grids of pixels.

    The same numbers, for a padding of the dilation and no bias. On a CPU PyTorch's own takes
    longer backward, and in bfloat16 its gradient of the weights is wrong (PyTorch 2.14,
    `benchmarks/dilated_depthwise.py`).
    """
    dilation = conv.dilation[0]
    batch, channels, height, width = x.shape
    rows, columns = -(-height // dilation), -(-width // dilation)
    pixels = x.permute(0, 2, 3, 1)
    if rows * dilation != height or columns * dilation != width:
        pixels = F.pad(pixels, (0, 0, 0, columns * dilation - width, 0, rows * dilation - height))
    grids = pixels.reshape(batch, rows, dilation, columns, dilation, channels)
    grids = grids.permute(2, 4, 0, 1, 3, 5).reshape(-1, rows, columns, channels)
    grids = F.conv2d(grids.permute(0, 3, 1, 2), conv.weight, padding=1, groups=channels)
    pixels = grids.permute(0, 2, 3, 1).reshape(dilation, dilation, batch, rows, columns, channels)
    pixels = pixels.permute(2, 3, 0, 4, 1, 5).reshape(batch, rows * dilation, -1, channels)
    return pixels[:, :height, :width].permute(0, 3, 1, 2)
