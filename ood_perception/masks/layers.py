# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What the two small networks of the masks stage share: their input and preparation."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

Net = TypeVar('Net', bound=nn.Module)


def log_odds(probability: Tensor) -> Tensor:
    """Log-odds / 4 of a probability 0..1, within -2..2, float32 of its shape; NaN counts as 0."""
    return torch.logit(torch.nan_to_num(probability.float(), nan=0.0), 3.4e-4) / 4


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
