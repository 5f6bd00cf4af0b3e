# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The mask head: a small network that outlines the one object in a crop.

It sees the picture, the log-odds of the calibrated probability and the box: the probability tells
which object is meant, the picture where it ends. U-shaped (Ronneberger et al., arXiv
1505.04597), at half of the crop's size between a pixel-unshuffle and a pixel-shuffle.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.models.unet import SmallNetwork, UNetwork, conv_bn_relu

CHANNELS = 5
"""Red, green, blue, log-odds, inside of the box."""


class MaskHead(UNetwork, SmallNetwork):
    """
    The network: (N, 5, s, s) -> (N, s, s) logits, > 0 = object; s a multiple of 16.

    Args:
        widths: channels at 1/2, 1/4, 1/8 and 1/16 of the crop's side.

    """

    rounds = True

    def __init__(self, widths: tuple[int, ...] = (32, 48, 64, 64)) -> None:
        super().__init__(conv_bn_relu(4 * CHANNELS, widths[0]), widths)
        self.out = nn.Conv2d(widths[0], 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network; see the class."""
        halves = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(self.out(self.maps(halves)), 2)[:, 0]
