# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A head that finds unknown objects in what a segmentor computes anyway.

It sees the backbone's maps, which know what belongs together, and the calibrated log-odds of the
likelihood ratio, which tell what is strange. For each place of 4 pixels it says how likely that is
the centre of an unknown object and how far away the object's sides are (after CenterNet, arXiv
1904.07850, and FCOS, arXiv 1904.01355). It runs inside the segmentor's engine: one call a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.models.int8 import Ranges, quantised
from ood_perception.models.output import InputSpec, SegmentorOutput
from ood_perception.models.unet import UNetwork, conv_bn_relu

STRIDE = 4
"""Pixels between two places of the output."""
RARE = -4.6
"""Logit of 1 %: a centre is rare, and focal losses want to start from there."""


def centres_and_sides(out: Tensor) -> Tensor:
    """(B, 5, h, w) -> the same, channels 1-4 made positive: distances to the sides in pixels."""
    return torch.cat([out[:, :1], F.softplus(out[:, 1:]) * STRIDE], 1)


class DetectionHead(UNetwork):
    """
    The network: log-odds and the backbone's maps -> (B, 5, H / 4, W / 4).

    Channel 0 is the logit of an object's centre; channels 1-4 are the distances to the left, top,
    right and bottom side in pixels, positive.

    Args:
        channels: of the backbone's maps at 1/4, 1/8, 1/16 and 1/32 of the image's size; those of
            EfficientNet-Lite0 by default.
        widths: its own channels at these sizes.

    Attributes:
        ranges: of its convolutions, with which it may run in int8, see `models.int8`.

    """

    ranges: Ranges = MappingProxyType({})

    def __init__(
        self,
        channels: Sequence[int] = (24, 40, 112, 320),
        widths: tuple[int, ...] = (24, 32, 48, 64),
    ) -> None:
        super().__init__(conv_bn_relu(1, widths[0], STRIDE // 2, STRIDE // 2), widths)
        self.channels = tuple(channels)
        self.reduce = nn.ModuleList(
            conv_bn_relu(a, b, size=1) for a, b in zip(channels, widths, strict=True)
        )
        self.head = nn.Conv2d(widths[0], 5, 1)
        assert self.head.bias is not None
        self.head.bias.data = torch.tensor([RARE, 0.0, 0.0, 0.0, 0.0])

    def forward(self, odds: Tensor, *features: Tensor) -> Tensor:
        """
        Run the network; see the class.

        Args:
            odds: float (B, 1, H / 2, W / 2), log(p / (1 - p)) / 4 within -2..2.
            features: float (B, channels[i], ...), the backbone's maps, finest first.

        """
        beside = [layer(x) for layer, x in zip(self.reduce, features, strict=True)]
        return centres_and_sides(self.head(self.maps(odds, beside)))


class DetectingSegmentor(nn.Module):
    """
    A segmentor whose output has the `detections` of a head.

    Args:
        segmentor: whose features are maps at stride 4 to 32.
        head: finds the objects.
        odds: from the segmentor's output to the head's log-odds.

    """

    def __init__(
        self, segmentor: nn.Module, head: DetectionHead, odds: Callable[[SegmentorOutput], Tensor]
    ) -> None:
        super().__init__()
        self.segmentor, self.detection, self.odds = segmentor, head, odds
        self.spec: InputSpec = segmentor.spec  # type: ignore[assignment]

    def forward(self, images: Tensor) -> SegmentorOutput:
        """Run both; see the segmentor."""
        output: SegmentorOutput = self.segmentor(images)
        output.detections = self.detection(self.odds(output), *output.features)
        return output

    def int8(self, images: Tensor) -> DetectingSegmentor:
        """Copy in int8; a head without `ranges` and the last layer of others stay in float32."""
        rounded: Any = self.segmentor.int8(images)  # type: ignore[operator]
        head: Any = self.detection
        if head.ranges:
            head = quantised(head, head.ranges)
        return DetectingSegmentor(rounded, head, self.odds).eval()
