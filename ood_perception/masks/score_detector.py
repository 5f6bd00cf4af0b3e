# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The score detector: a small network that finds objects in the picture and the calibrated score.

The log-odds of the calibrated probability tell what is strange, the picture what belongs together
and where it ends. The network is U-shaped; its output at 4 pixels tells for each place how likely
it is the centre of an unknown object and how far away the object's sides are (after CenterNet,
arXiv 1904.07850, and FCOS, arXiv 1904.01355).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.checkpoints.loading import load_exactly
from ood_perception.masks.boxes import Boxes, empty_boxes
from ood_perception.masks.crops import log_odds
from ood_perception.masks.detection_prompts import DetectorPrompts
from ood_perception.models.detection_head import RARE, STRIDE, centres_and_sides
from ood_perception.models.unet import SmallNetwork, UNetwork, conv_bn_relu, fuse_conv_bn

SHORT_SIDE = 540
"""Shorter side in pixels above which a frame is reduced, so the work does not grow with it."""
WEIGHTS = 'package:light_prompts.safetensors'


class ScoreDetector(UNetwork, SmallNetwork):
    """
    The network: (B, 4, h, w) of `detector_input` -> (B, 5, h / 4, w / 4).

    Channel 0 is the logit of an object's centre; channels 1-4 are the distances to the left, top,
    right and bottom side in pixels, positive.

    Args:
        widths: channels at 1/4, 1/8, 1/16 and 1/32 of the input's size.

    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64)) -> None:
        super().__init__(conv_bn_relu(4, widths[0], STRIDE, STRIDE), widths)
        self.head = nn.Conv2d(widths[0], 5, 1)
        assert self.head.bias is not None
        self.head.bias.data = torch.tensor([RARE, 0.0, 0.0, 0.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        """Run the network; see the class."""
        return centres_and_sides(self.head(self.maps(x)))


def detector_input(images: Tensor, probability: Tensor) -> Tensor:
    """
    Input of the network.

    Args:
        images: uint8 (B, 3, H, W) RGB.
        probability: float32 (B, H, W), 0..1, the calibrated score; NaN counts as 0.

    Returns:
        float32 (B, 4, h, w): the colours within -2..2 and log(p / (1 - p)) / 4, reduced where the
        shorter side is above `SHORT_SIDE`; the last row and column are repeated up to a whole
        `STRIDE`.

    """
    planes = torch.cat([images.float() / 64 - 2, log_odds(probability)[:, None]], 1)
    scale = reduction(*probability.shape[1:])
    if scale > 1:
        size = [max(1, round(side / scale)) for side in probability.shape[1:]]
        planes = F.interpolate(planes, size, mode='bilinear', antialias=True)
    below, beside = (-side % STRIDE for side in planes.shape[2:])
    return F.pad(planes, (0, beside, 0, below), mode='replicate')


def reduction(height: int, width: int) -> float:
    """Pixels of a frame for one of `detector_input`'s."""
    return max(1.0, min(height, width) / SHORT_SIDE)


class ScoreDetectorPrompts(DetectorPrompts):
    """
    Boxes of `ScoreDetector`, for any score; reads picture and probability.

    Args:
        weights: '' for a random network, ``package:FILE``, or a path of a safetensors file.
        options: of `DetectorPrompts`.

    Raises:
        OSError: there is no such weight file.
        ValueError: an option out of its range, or weights that do not fit.

    """

    def __init__(self, weights: str = WEIGHTS, **options: Any) -> None:
        super().__init__(**options)
        network = ScoreDetector()
        if weights:
            load_exactly(network, weights)
        self.network = fuse_conv_bn(network)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor, score: Tensor, probability: Tensor) -> Boxes:
        """Propose boxes; see `base.PromptModel`."""
        if self.nothing_in(probability):
            return empty_boxes(len(probability), self.slots)
        output = self.network(detector_input(images, probability))
        return self.read(output, probability, reduction(*probability.shape[1:]))
