# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a segmentor wants to be fed."""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a segmentor wants its image."""

    # per channel (RGB), subtracted from the image scaled to 0..1
    mean: tuple[float, float, float] = IMAGENET_MEAN
    # per channel (RGB), divides after the mean is subtracted
    std: tuple[float, float, float] = IMAGENET_STD
    multiple_of: int = 1  # height and width must be multiples of this many pixels
