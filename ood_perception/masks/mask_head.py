# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The mask head: a small network that outlines the one object in a crop.

It sees the picture, the log-odds of the calibrated probability and the box: the probability tells
which object is meant, the picture where it ends. U-shaped (Ronneberger et al., arXiv
1505.04597), at half of the crop's size between a pixel-unshuffle and a pixel-shuffle.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.masks.layers import log_odds
from ood_perception.models.unet import SmallNetwork, UNetwork, conv_bn_relu

SIZE = 96
"""Side in pixels of the square crop that the shipped weights were trained on."""
MARGIN = 0.25
"""Share of the box's sides that the crop adds on every side."""
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
        return F.pixel_shuffle(self.out(self.maps(F.pixel_unshuffle(x, 2))), 2)[:, 0]


def cut(
    image: Tensor,
    probability: Tensor,
    window: tuple[int, int, int, int],
    box: Sequence[float],
    size: int = SIZE,
) -> Tensor:
    """
    Make the head's input for one box, see `Resampling` for many.

    Args:
        image: uint8 (3, H, W) RGB.
        probability: float (H, W), 0..1, calibrated; NaN counts as 0.
        window: x1, y1, x2, y2 of the crop in whole pixels, inside the frame.
        box: x1, y1, x2, y2 of the prompt in pixels.
        size: side of the crop that comes back.

    Returns:
        float32 (5, size, size).

    """
    x1, y1, x2, y2 = window
    odds = log_odds(probability[y1:y2, x1:x2])
    part = torch.cat([image[:, y1:y2, x1:x2].float() / 64 - 2, odds[None]])
    part = F.interpolate(part[None], (size, size), mode='bilinear', antialias=True)[0]
    step_x, step_y = (x2 - x1) / size, (y2 - y1) / size
    x = torch.arange(size, device=part.device) * step_x + (x1 + step_x / 2)
    y = torch.arange(size, device=part.device) * step_y + (y1 + step_y / 2)
    inside = ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None]
    return torch.cat([part, inside[None].float()])


def windows(
    boxes: Sequence[Sequence[float]], height: int, width: int, margin: float
) -> list[tuple[int, int, int, int]]:
    """
    Whole-pixel windows around boxes, inside the frame.

    Args:
        boxes: N times x1, y1, x2, y2 in pixels, inside the frame and not empty.
        height: of the frame in pixels.
        width: of the frame in pixels.
        margin: share of the box's sides added on every side, at least 3 pixels.

    """
    found = []
    for x1, y1, x2, y2 in boxes:
        dx, dy = max(3.0, margin * (x2 - x1)), max(3.0, margin * (y2 - y1))
        found.append(
            (
                max(0, int(x1 - dx)),
                max(0, int(y1 - dy)),
                min(width, int(x2 + dx) + 1),
                min(height, int(y2 + dy) + 1),
            )
        )
    return found


class Resampling:
    """
    `windows`, `cut` and the way back along one axis, for (B, K) boxes, with shapes known before.

    Args:
        sides: float32 (B, K, 2), first and last pixel coordinate of each box; 0, 0 in empty slots.
        length: of the frame along this axis in pixels.
        size: side of the crop.

    Attributes:
        shrink: float32 (B, K, size, length), antialiased bilinear weights of the frame's pixels.
        grow: float32 (B, K, length, size), bilinear weights of the crop's pixels.
        inside: bool (B, K, size), pixels of the crop in the box.
        reached: bool (B, K, length), pixels of the frame in the crop.

    """

    def __init__(self, sides: Tensor, length: int, size: int) -> None:
        # In float64, as the host's numbers are: the corners must be the same pixels.
        low, high = sides.double()[..., None].unbind(2)
        margin = (MARGIN * (high - low)).clamp(min=3.0)
        first = (low - margin).trunc().clamp(min=0)
        last = ((high + margin).trunc() + 1).clamp(max=length)
        step = (last - first) / size
        pixel = torch.arange(length, device=sides.device)
        place = torch.arange(size, device=sides.device)
        self.reached = (pixel >= first) & (pixel < last)
        # Places of the crop's pixels in the frame, and of the frame's pixels in the crop.
        centre = (place.float() * step.float() + (first + step / 2).float()).float()
        self.inside = (centre >= sides[..., :1]) & (centre < sides[..., 1:])
        exact = first + (place + 0.5) * step
        gap = (pixel + 0.5 - exact[..., None]).abs() / step.clamp(min=1)[..., None]
        weight = (1 - gap).clamp(min=0) * self.reached[..., None, :]
        self.shrink = (weight / weight.sum(-1, keepdim=True)).float()
        back = ((pixel + 0.5 - first) / step - 0.5).clamp(0, size - 1)
        self.grow = (1 - (back[..., None] - place).abs()).clamp(min=0).float()
