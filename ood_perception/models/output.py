# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What every segmentor returns and what it wants to be fed."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """
    How a segmentor wants its image.

    Attributes:
        mean: per channel (RGB), subtracted from the image scaled to 0..1.
        std: per channel (RGB), divides after the mean is subtracted.
        multiple_of: height and width must be multiples of this many pixels.

    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    multiple_of: int = 1


@dataclass(slots=True)
class SegmentorOutput:
    """
    One forward pass of a segmentor over (B, 3, H, W) normalised RGB images.

    Attributes:
        features: list of (B, C_i, h_i, w_i) float maps, finest first unless stated.
        logits: (B, K, h, w) class logits F_k at head resolution, or None for a bare backbone.
        ood: (B, 2, h', w') UEM logits, 0 = inlier, 1 = outlier, or None without a UEM.

    """

    features: list[Tensor] = field(default_factory=list)
    logits: Tensor | None = None
    ood: Tensor | None = None
