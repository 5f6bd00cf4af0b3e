# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What the mask head sees of a box: a square crop of the picture and of the log-odds around it.

`windows` and `cut` make the crops one by one, `Resampling` makes all of them where shapes must be
known before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIZE = 96
"""Side in pixels of the square crop that the shipped weights were trained on."""
MARGIN = 0.25
"""Share of the box's sides that the crop adds on every side."""


def log_odds(probability: Tensor) -> Tensor:
    """Log-odds / 4 of a probability 0..1, within -2..2, float32 of its shape; NaN counts as 0."""
    return torch.logit(torch.nan_to_num(probability.float(), nan=0.0), 3.4e-4) / 4


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
    made = torch.empty(5, size, size, device=image.device)
    # Bytes are resampled with vector instructions, numbers are not: a third of the time.
    torch.div(_resampled(image[:, y1:y2, x1:x2], size), 64, out=made[:3]).sub_(2)
    made[3:4] = _resampled(log_odds(probability[y1:y2, x1:x2])[None], size)
    inside = []
    for first, last, low, high in ((y1, y2, box[1], box[3]), (x1, x2, box[0], box[2])):
        step = (last - first) / size
        place = np.arange(size, dtype=np.float32) * np.float32(step) + np.float32(first + step / 2)
        inside.append((place >= low) & (place < high))
    made[4] = torch.from_numpy(np.logical_and.outer(*inside))
    return made


def _resampled(planes: Tensor, size: int) -> Tensor:
    return F.interpolate(planes[None], (size, size), mode='bilinear', antialias=True)[0]


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
