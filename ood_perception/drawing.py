# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The overlay for people: heatmap colours, outlines and labels drawn into the camera image."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

OUTLINE = (255, 255, 255)
SHADOW = (0, 0, 0)


@lru_cache(maxsize=32)
def _table(colormap: str, alpha: float) -> tuple[Image, Image]:
    """Colours times opacity and 255 minus opacity, (256, 1, 3) each, for every heatmap value."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    colours = cv2.applyColorMap(ramp, getattr(cv2, f'COLORMAP_{colormap.upper()}'))[..., ::-1]
    # Faint probabilities stay clear, so that the picture below remains readable.
    opacity = alpha * np.clip((np.arange(256) - 16) / 112.0, 0, 1)[:, None, None]
    weighted = np.rint(colours * opacity).astype(np.uint8)
    keep = np.rint(255 * (1 - opacity)).repeat(3, 2).astype(np.uint8)
    return np.ascontiguousarray(weighted), np.ascontiguousarray(keep)


def draw(
    image: Image,
    heatmap: Image | None,
    instances: NDArray[np.uint16] | None,
    boxes: NDArray[np.float32] | None = None,
    labels: list[str] | None = None,
    alpha: float = 0.6,
    colormap: str = 'turbo',
    out: Image | None = None,
    colour: tuple[int, int, int] = OUTLINE,
) -> Image:
    """
    Draw what was found into an image: uint8 (H, W, 3) RGB, `out` where given.

    Args:
        image: uint8 (H, W, 3) RGB; left as it is.
        heatmap: uint8 (H, W), 0..255 = probability of being unknown, or None.
        instances: uint16 (H, W), 0 = none, or None; outlined on black.
        boxes: float32 (N, 4) XYXY pixels, where the labels go.
        alpha: opacity 0..1 of the colours where the probability is high.
        colormap: an OpenCV colour map's name in lower case.
        out: uint8 (H, W, 3) that is written to, or None.
        colour: RGB of the outlines.
    """
    out = np.empty_like(image) if out is None else out
    if heatmap is None or not heatmap.any():
        np.copyto(out, image)
    else:
        weighted, keep = _table(colormap, round(float(alpha), 3))
        heat = cv2.merge([heatmap] * 3)
        cv2.multiply(image, cv2.LUT(heat, keep.reshape(1, 256, 3)), dst=out, scale=1 / 255)
        cv2.add(out, cv2.LUT(heat, weighted.reshape(1, 256, 3)), dst=out)
    if instances is not None and instances.any():
        thin = outline(instances)
        thick = cv2.dilate(thin, np.ones((3, 3), np.uint8))
        out[thick > 0] = SHADOW
        out[thin > 0] = colour
    for box, text in zip(boxes if boxes is not None else (), labels or (), strict=False):
        _write(out, text, int(box[0]), int(box[1]))
    return out


def outline(instances: NDArray[np.uint16]) -> Image:
    """Mark (1, else 0) the pixels of each instance that touch another instance or none."""
    edge = np.zeros(instances.shape, bool)
    differs = instances[1:] != instances[:-1]
    edge[1:] |= differs
    edge[:-1] |= differs
    differs = instances[:, 1:] != instances[:, :-1]
    edge[:, 1:] |= differs
    edge[:, :-1] |= differs
    return (edge & (instances > 0)).astype(np.uint8)


def _write(image: Any, text: str, x: int, y: int) -> None:
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.35, image.shape[0] / 1200)
    place = (max(x, 2), max(y - 4, int(24 * scale) + 2))
    cv2.putText(image, text, place, font, scale, SHADOW, 3, cv2.LINE_AA)
    cv2.putText(image, text, place, font, scale, OUTLINE, 1, cv2.LINE_AA)
