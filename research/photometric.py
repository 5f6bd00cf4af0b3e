# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Lighting, colour and camera: how the same thing looks different, for frames and for cut-outs.

All functions take a `numpy.random.Generator` and uint8 RGB(A) images and leave their inputs as
they are, unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

Array = np.ndarray
Rng = np.random.Generator

SURFACES = (1, 3, 4, 5, 7)
"""CamVid classes of large surfaces: building, road, pavement, tree, fence."""


def change_camera(rng: Rng, image: Array) -> Array:
    """
    Change a whole frame as another camera, weather or time of day would.

    Gamma, gain and colour cast, saturation, contrast, blur, haze, noise and JPEG, each with a
    probability of its own.

    Args:
        rng: random numbers.
        image: uint8 (H, W, 3) RGB.

    Returns:
        uint8 (H, W, 3).

    """
    x = image.astype(np.float32) / 255
    if rng.random() < 0.7:
        x = x ** np.float32(rng.uniform(0.6, 1.6))
    if rng.random() < 0.6:
        x = x * (rng.uniform(0.6, 1.35) * rng.uniform(0.86, 1.14, 3)).astype(np.float32)
    if rng.random() < 0.4:
        grey = x.mean(axis=2, keepdims=True)
        x = grey + (x - grey) * np.float32(rng.uniform(0.2, 1.7))
    if rng.random() < 0.3:
        mean = x.mean()
        x = mean + (x - mean) * np.float32(rng.uniform(0.6, 1.4))
    if rng.random() < 0.25:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 1.6))
    elif rng.random() < 0.2:  # the sharpening of consumer cameras
        x = x + np.float32(rng.uniform(0.3, 1.2)) * (x - cv2.GaussianBlur(x, (0, 0), 1.0))
    if rng.random() < 0.15:  # haze, thicker above
        ramp = 1 - 0.6 * np.linspace(0, 1, x.shape[0], dtype=np.float32)[:, None, None]
        x = x * 0.8 + np.float32(rng.uniform(0, 0.35)) * ramp
    if rng.random() < 0.35:
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        x = x + noise * np.float32(rng.uniform(0.004, 0.04))
    result = (np.clip(x, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.4:
        result = jpeg(result, int(rng.integers(30, 95)))
    return result


def jpeg(image: Array, quality: int) -> Array:
    """Compress uint8 (H, W, 3) as JPEG of quality 1..100 and decode it."""
    # the order of channels matters little to the codec, so none are swapped
    encoded = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)


def change_object(rng: Rng, rgba: Array, strong: bool = True) -> Array:
    """
    Change colour, contrast and texture of a cut-out; its alpha stays, but it may be mirrored.

    Args:
        rng: random numbers.
        rgba: uint8 (h, w, 4).
        strong: True for unknown things, which may have any colour; False for known ones, which
            stay believable.

    Returns:
        uint8 (h, w, 4).

    """
    if rng.random() < 0.5:
        rgba = rgba[:, ::-1]
    rgb = rgba[..., :3].astype(np.float32)
    if strong and rng.random() < 0.25:
        if rng.random() < 0.5:
            rgb = rgb.mean(axis=2, keepdims=True).repeat(3, axis=2)
        else:
            rgb = rgb[..., rng.permutation(3)]
    if strong and rng.random() < 0.15:  # nearly uniform things
        rgb = cv2.GaussianBlur(np.ascontiguousarray(rgb), (0, 0), rng.uniform(2, 8))
    gamma = rng.uniform(0.7, 1.4) if strong else rng.uniform(0.85, 1.18)
    rgb = 255 * np.clip(rgb / 255, 0, 1) ** np.float32(gamma)
    opaque = rgba[..., 3] > 127
    mean = rgb[opaque].mean(axis=0) if opaque.any() else rgb.mean(axis=(0, 1))
    contrast, gain = rng.uniform(0.7, 1.25), rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)
    rgb = (rgb - mean) * np.float32(contrast) + (mean * gain).astype(np.float32)
    return np.dstack([np.clip(rgb, 0, 255).astype(np.uint8), rgba[..., 3]])


def recolour_surface(
    rng: Rng, image: Array, label: Array, surfaces: Sequence[int] = SURFACES
) -> None:
    """
    Give one surface of the frame another colour and weak large stains, in place.

    A wall may be of any colour and a verge of bare soil: neither is an unknown object.

    Args:
        rng: random numbers.
        image: uint8 (H, W, 3), changed in place.
        label: uint8 (H, W), class ids.
        surfaces: classes of which one is chosen.

    """
    present = [c for c in surfaces if (label[::8, ::8] == c).any()]
    if not present:
        return
    chosen = label == present[int(rng.integers(len(present)))]
    height, width = label.shape
    coarse = rng.standard_normal((int(rng.integers(3, 30)), int(rng.integers(3, 40))))
    stains = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    gain = rng.uniform(0.65, 1.4) * rng.uniform(0.75, 1.25, 3)
    gain = gain.astype(np.float32) * (1 + np.float32(rng.uniform(0, 0.16)) * stains[..., None])
    # a soft edge, or the edge itself would tell that something was changed
    weight = (
        cv2.GaussianBlur(chosen.astype(np.float32), (0, 0), 1.0)[..., None] * chosen[..., None]
    )
    changed = image * (1 + weight * (gain - 1))
    image[...] = np.clip(changed, 0, 255).astype(np.uint8)
