# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Drawn objects: boxes, barrels, balls, blobs and things of many parts, plain or textured.

Photographs of objects are few and mostly full of texture; a container, a phone box or a tank is
large and plain. These teach that the inside of a plain thing is as unknown as its edge.
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray
Rng = np.random.Generator


def draw_texture(rng: Rng, height: int, width: int) -> Array:
    """Draw a plain, striped, stained, grained or chequered surface: float32 (h, w, 3), 0..255."""
    base = rng.integers(0, 256, 3).astype(np.float32)
    if rng.random() < 0.35:  # grey, as most man-made surfaces are
        base[:] = base.mean() + rng.normal(0, 12, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    pattern = _pattern(rng, y, x)
    tint = rng.uniform(0.3, 1, 3).astype(np.float32)
    surface = base + (pattern * np.float32(rng.uniform(3, 70)))[..., None] * tint
    angle = rng.uniform(0, 2 * np.pi)
    shade = (x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle)
    return np.clip(surface + (shade * rng.uniform(0, 120))[..., None], 0, 255).astype(np.float32)


def _pattern(rng: Rng, y: Array, x: Array) -> Array:
    height, width = y.shape
    kind = int(rng.integers(6))
    if kind == 1:
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(0.05, 0.9)
        return np.sign(np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle)))) * 0.5
    if kind == 2:
        coarse = rng.standard_normal((height // 8 + 2, width // 8 + 2)).astype(np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    if kind == 3:
        grain = rng.standard_normal((height, width), dtype=np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), rng.uniform(0.5, 2))
        return grain / (grain.std() + 1e-6)
    if kind == 4:
        side = int(rng.integers(4, 24))
        return ((x // side + y // side) % 2) - 0.5
    return np.zeros((height, width), np.float32)


def draw_object(rng: Rng) -> Array:
    """Draw an object of random kind, 60..260 pixels a side: uint8 (h, w, 4) RGBA."""
    height, width = (int(v) for v in rng.integers(60, 260, 2))
    surface = draw_texture(rng, height, width)
    mask = np.zeros((height, width), np.uint8)
    kind = int(rng.integers(len(_KINDS)))
    _KINDS[kind](rng, surface, mask)
    return np.dstack([np.clip(surface, 0, 255).astype(np.uint8), mask])


def _panel(rng: Rng, surface: Array, mask: Array) -> None:
    height, width = mask.shape
    cv2.rectangle(mask, (2, 2), (width - 3, height - 3), 255, -1)


def _ball(rng: Rng, surface: Array, mask: Array) -> None:
    height, width = mask.shape
    half = width // 2, height // 2
    cv2.ellipse(mask, half, (half[0] - 2, half[1] - 2), 0, 0, 360, 255, -1)
    y, x = np.mgrid[0:height, 0:width]
    distance = (x / width - 0.35) ** 2 + (y / height - 0.3) ** 2
    surface *= np.clip(1.25 - distance * rng.uniform(0.5, 2), 0.2, 1.4)[..., None]


def _barrel(rng: Rng, surface: Array, mask: Array) -> None:
    height, width = mask.shape
    lid, middle = max(3, height // 12), width // 2
    cv2.rectangle(mask, (2, lid), (width - 3, height - 1 - lid), 255, -1)
    for centre in (lid, height - 1 - lid):
        cv2.ellipse(mask, (middle, centre), (middle - 2, lid - 1), 0, 0, 360, 255, -1)
    across = np.linspace(-1, 1, width)
    surface *= np.clip(1.1 - 0.8 * (across - 0.3) ** 2, 0.2, 1.3)[None, :, None]


def _blob(rng: Rng, surface: Array, mask: Array) -> None:
    height, width = mask.shape
    count = int(rng.integers(5, 14))
    angle, radius = np.sort(rng.uniform(0, 2 * np.pi, count)), rng.uniform(0.45, 1, count)
    x = width / 2 * (1 + radius * np.cos(angle) * 0.97)
    y = height / 2 * (1 + radius * np.sin(angle) * 0.97)
    cv2.fillPoly(mask, [np.stack([x, y], 1).astype(np.int32)], (255,))
    if rng.random() < 0.6:
        soft = cv2.GaussianBlur(mask, (0, 0), min(height, width) / 14)
        mask[...] = np.where(soft > 127, 255, 0)


def _box(rng: Rng, surface: Array, mask: Array) -> None:
    height, width = mask.shape
    side, top = int(width * rng.uniform(0.1, 0.4)), int(height * rng.uniform(0.05, 0.3))
    edge, bottom, right = width - side - 1, height - 1, width - 1
    faces = (
        ([(0, top), (edge, top), (edge, bottom), (0, bottom)], 1.0),
        ([(edge, top), (right, 0), (right, bottom - top), (edge, bottom)], rng.uniform(0.35, 0.8)),
        ([(0, top), (side, 0), (right, 0), (edge, top)], rng.uniform(0.9, 1.4)),
    )
    shade = np.ones((height, width), np.float32)
    for corners, light in faces:
        points = np.array(corners, np.int32)
        cv2.fillPoly(mask, [points], (255,))
        cv2.fillPoly(shade, [points], (float(light),))
    surface *= shade[..., None]


def _parts(rng: Rng, surface: Array, mask: Array) -> None:
    height, width = mask.shape
    for _ in range(int(rng.integers(2, 6))):
        x, y = int(rng.integers(0, width * 2 // 3)), int(rng.integers(0, height * 2 // 3))
        w, h = (
            int(rng.integers(width // 6, width // 2 + 2)),
            int(rng.integers(height // 6, height // 2)),
        )
        part = np.zeros_like(mask)
        if rng.random() < 0.6:
            cv2.rectangle(part, (x, y), (x + w, y + h), 255, -1)
        else:
            cv2.ellipse(part, (x + w // 2, y + h // 2), (w // 2, h // 2), 0, 0, 360, 255, -1)
        surface[part > 0] = draw_texture(rng, height, width)[part > 0]
        mask |= part


_KINDS = (_panel, _ball, _barrel, _blob, _box, _parts)
