# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The published forms of outlier exposure and augmentation, exactly as their code has them.

UEM: Nayal et al., "A Likelihood Ratio-Based Approach to Segmenting Unknown Objects", IJCV 2025.
S2M: Zhao et al., "Segment Every Out-of-Distribution Object", CVPR 2024, after RPL: Liu et al.,
"Residual Pattern Learning for Pixel-wise Out-of-Distribution Detection", ICCV 2023.
None of them blends, relights or places objects sensibly: see `outlier_exposure` for ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torchvision.transforms import v2

from ood_perception.labels import Label
from ood_training.data import Objects
from ood_training.recipes import as_array, as_image, seeded

Array = np.ndarray
Rng = np.random.Generator

RPL_SCALES = (0.25, 0.5, 0.5, 0.75, 0.1, 0.125)
"""Factors by which RPL and S2M scale the COCO image; 0.5 stands twice, as in the code."""


def anomaly_mix(
    rng: Rng, image: Array, label: Array, objects: Objects, probability: float = 0.2
) -> tuple[Array, Array]:
    """
    UEM's Anomaly Mix: one COCO image's instances, native size, hard edge, uniformly placed.

    Nothing is pasted where the box of the instances is larger than the image. Void is overwritten.

    Args:
        rng: random numbers.
        image: uint8 (H, W, 3) RGB.
        label: uint8 (H, W).
        objects: what to paste.
        probability: that anything is pasted.

    """
    if rng.random() >= probability:
        return image, label
    rgb, mask = tight(choose(objects, rng))
    return paste(rng, image, label, rgb, mask)


def rpl_mix(
    rng: Rng,
    image: Array,
    label: Array,
    objects: Objects,
    crop: int = 700,
    scales: Sequence[float] = RPL_SCALES,
    mirror: float = 0.8,
) -> tuple[Array, Array]:
    """
    S2M's outlier exposure in RPL's style: crop 700x700, scale, centre-crop or pad, hard paste.

    Args:
        rng: random numbers.
        image: uint8 (H, W, 3) RGB.
        label: uint8 (H, W).
        objects: COCO images.
        crop: side of the result.
        scales: factors to choose from.
        mirror: probability of mirroring (0.8 as coded).

    """
    if rng.random() >= 1 - mirror:
        image, label = image[:, ::-1], label[:, ::-1]
    image, label = random_crop(rng, image, label, (crop, crop))
    scale = float(scales[rng.integers(len(scales))])
    rgba = choose(objects, rng)
    size = (max(round(rgba.shape[1] * scale), 1), max(round(rgba.shape[0] * scale), 1))
    rgb = cv2.resize(rgba[..., :3], size, interpolation=cv2.INTER_LINEAR)
    alpha = cv2.resize(rgba[..., 3], size, interpolation=cv2.INTER_NEAREST)
    canvas = np.dstack([centre(rgb, (crop, crop), 0), centre(alpha, (crop, crop), 0)])
    rgb, mask = tight(canvas)
    return paste(rng, image, label, rgb, mask)


def paste(rng: Rng, image: Array, label: Array, rgb: Array, mask: Array) -> tuple[Array, Array]:
    """Copy `rgb` where `mask` to a uniformly random place; nothing where it does not fit."""
    (h, w), (height, width) = mask.shape, label.shape
    if h == 0 or h > height or w > width:
        return image, label
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    image, label = image.copy(), label.copy()
    image[y : y + h, x : x + w][mask] = rgb[mask]
    label[y : y + h, x : x + w][mask] = Label.UNKNOWN
    return image, label


@dataclass(frozen=True)
class UemAugmentation:
    """
    The augmentation of both UEM stages; sizes are (height, width) in pixels.

    The published 518x1036 "patches" are 512x1024 crops with a black, ignored border. A crop
    that is larger than the scaled image is padded in the same way (the original would fail).

    Attributes:
        scale: range of the uniform scale factor.
        crop: random crop.
        pad: the result, the crop centred in it.
        jitter: probability of the colour jitter.
        strength: of brightness, contrast and saturation: factors 1 - s .. 1 + s.
        hue: half range of the hue shift in turns (0.5 = any hue).

    """

    scale: tuple[float, float] = (0.5, 2.0)
    crop: tuple[int, int] = (512, 1024)
    pad: tuple[int, int] = (518, 1036)
    jitter: float = 0.5
    strength: float = 0.2
    hue: float = 0.5

    def __call__(self, rng: Rng, image: Array, label: Array) -> tuple[Array, Array]:
        """Augment image uint8 (H, W, 3) and label uint8 (H, W)."""
        factor = rng.uniform(*self.scale)
        size = (max(round(label.shape[1] * factor), 1), max(round(label.shape[0] * factor), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        image, label = random_crop(rng, image, label, self.crop)
        image, label = centre(image, self.pad, 0), centre(label, self.pad, Label.VOID)
        if rng.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        if rng.random() < self.jitter:
            image = colour_jitter(rng, image, self.strength, self.hue)
        return np.ascontiguousarray(image), np.ascontiguousarray(label)


def random_crop(
    rng: Rng, image: Array, label: Array, size: tuple[int, int]
) -> tuple[Array, Array]:
    """Crop (height, width) at a uniform place; what is missing is black and ignored."""
    height, width = size
    h, w = label.shape
    if h < height or w < width:
        grown = max(h, height), max(w, width)
        image, label = centre(image, grown, 0), centre(label, grown, Label.VOID)
        h, w = grown
    y, x = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
    return image[y : y + height, x : x + width], label[y : y + height, x : x + width]


def centre(array: Array, size: tuple[int, int], fill: int) -> Array:
    """Centre-crop or pad (H, W) or (H, W, C) to `size` = (height, width)."""
    for axis in (0, 1):
        have, want = array.shape[axis], size[axis]
        if have > want:
            start = (have - want) // 2
            array = array.take(range(start, start + want), axis)
        elif have < want:
            before = (want - have) // 2
            width = [(0, 0)] * array.ndim
            width[axis] = (before, want - have - before)
            array = np.pad(array, width, constant_values=fill)
    return array


def colour_jitter(rng: Rng, image: Array, strength: float, hue: float) -> Array:
    """Jitter brightness, contrast, saturation and hue of uint8 (H, W, 3) RGB in random order."""
    with seeded(rng):
        jitter = v2.ColorJitter(strength, strength, strength, hue)
        return as_array(jitter(as_image(image)))


def tight(object_: Array) -> tuple[Array, Array]:
    """Crop to the box of alpha > 127: RGB uint8 (h, w, 3) and mask bool (h, w); h = 0 if none."""
    mask = object_[..., 3] > 127
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return object_[:0, :0, :3], mask[:0, :0]
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return object_[box][..., :3], mask[box]


def choose(objects: Objects | Sequence[Array], rng: np.random.Generator) -> Array:
    """Load one object at random."""
    index = int(rng.integers(len(objects)))
    return objects[index] if isinstance(objects, (list, tuple)) else objects.load(index)  # type: ignore[union-attr]
