# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Hard seeing: night, backlight, a lens's cast, rain, motion blur, a grey camera.

None of it is an unknown object. It is put on whole samples, objects included, so that it is no
evidence of one either. All functions take and return float32 (H, W, 3) RGB, 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray
Rng = np.random.Generator


def hard_seeing(rng: Rng, image: Array, share: float = 0.4) -> Array:
    """
    Put one kind of hard seeing on a share of frames.

    Args:
        rng: random numbers.
        image: uint8 (H, W, 3) RGB.
        share: of the frames that are changed.

    Returns:
        uint8 (H, W, 3).

    """
    if rng.random() >= share:
        return image
    kinds = (night, night, backlight, lens_cast, rain, motion_blur, grey_camera)
    changed = kinds[int(rng.integers(len(kinds)))](rng, image.astype(np.float32) / 255)
    return (np.clip(changed, 0, 1) * 255).astype(np.uint8)


def night(rng: Rng, x: Array) -> Array:
    """Little light of one colour, lamps with their glow, headlights on the near ground, noise."""
    height, width = x.shape[:2]
    grey = x.mean(2, keepdims=True)
    x = grey + (x - grey) * np.float32(rng.uniform(0.2, 0.9))
    x = x ** np.float32(rng.uniform(1.1, 1.8)) * np.float32(rng.uniform(0.25, 0.7))
    cast = np.array((1.15, 0.95, 0.7) if rng.random() < 0.6 else (0.8, 0.95, 1.2), np.float32)
    light = np.ones((height, width), np.float32)
    if rng.random() < 0.6:  # headlights
        y, c = np.mgrid[0:height, 0:width].astype(np.float32)
        beam = ((c / width - 0.5) / rng.uniform(0.25, 0.5)) ** 2
        beam = beam + ((y / height - rng.uniform(0.7, 1.0)) / rng.uniform(0.2, 0.4)) ** 2
        light += np.float32(rng.uniform(0.5, 2.0)) * np.exp(-beam)
    x = x * light[..., None] * cast
    glow = np.zeros_like(x)
    for _ in range(int(rng.integers(0, 7))):
        centre = int(rng.integers(width)), int(rng.uniform(0, 0.6) * height)
        radius = int(rng.integers(1, max(width // 60, 2)))
        colour = [float(v) for v in cast * rng.uniform(0.8, 1.5)]
        cv2.circle(glow, centre, radius, colour, -1, cv2.LINE_AA)
    wide = cv2.GaussianBlur(glow, (0, 0), rng.uniform(3, 12))
    x = np.maximum(x + wide * np.float32(rng.uniform(0.5, 3)), np.minimum(glow, 1))
    noise = rng.standard_normal(x.shape, dtype=np.float32)
    return x + noise * np.float32(rng.uniform(0.005, 0.05))


def backlight(rng: Rng, x: Array) -> Array:
    """A low sun or a bright window: a veil around it, what stands before it dark."""
    height, width = x.shape[:2]
    y, c = np.mgrid[0:height, 0:width].astype(np.float32)
    centre = rng.uniform(-0.1, 1.1) * width, rng.uniform(-0.1, 0.6) * height
    far = ((c - centre[0]) ** 2 + (y - centre[1]) ** 2) / (rng.uniform(0.15, 0.6) * width) ** 2
    veil = (np.exp(-far) * rng.uniform(0.4, 1.0)).astype(np.float32)[..., None]
    tint = np.array((1, 1, 1), np.float32) * rng.uniform(0.85, 1, 3).astype(np.float32)
    dark = x ** np.float32(rng.uniform(1, 1.8)) * np.float32(rng.uniform(0.4, 0.9))
    return dark + veil * tint + np.float32(rng.uniform(0, 0.08))


def lens_cast(rng: Rng, x: Array) -> Array:
    """Colour and brightness that change across the picture, as a lens or a filter makes them."""
    height, width = x.shape[:2]
    y, c = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle, shift = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.4, 2)
    ramp = 0.5 + 0.5 * (c * np.cos(angle) + y * np.sin(angle))
    round_ = np.clip((c - shift[0]) ** 2 + (y - shift[1]) ** 2, 0, 2)
    colour = rng.uniform(-0.25, 0.3, 3).astype(np.float32)
    vignette = 1 - np.float32(rng.uniform(0, 0.4)) * round_
    return x * vignette[..., None] + (ramp if rng.random() < 0.5 else round_)[..., None] * colour


def rain(rng: Rng, x: Array) -> Array:
    """Streaks, drops on the lens, little contrast."""
    height, width = x.shape[:2]
    x = x.mean() + (x - x.mean()) * np.float32(rng.uniform(0.5, 0.9)) + np.float32(0.03)
    streaks = np.zeros((height, width), np.float32)
    lean, length = rng.normal(0, 0.2), rng.uniform(0.03, 0.12) * height
    for _ in range(int(rng.integers(20, 250))):
        a, b = rng.uniform(0, width), rng.uniform(0, height)
        end = int(a + lean * length), int(b + length)
        cv2.line(streaks, (int(a), int(b)), end, float(rng.uniform(0.1, 0.5)), 1, cv2.LINE_AA)
    x = x + cv2.GaussianBlur(streaks, (0, 0), 0.7)[..., None]
    if rng.random() < 0.6:
        drops = np.zeros((height, width), np.float32)
        for _ in range(int(rng.integers(2, 25))):
            centre = int(rng.integers(width)), int(rng.integers(height))
            cv2.circle(drops, centre, int(rng.integers(2, max(width // 30, 3))), 1.0, -1)
        drops = cv2.GaussianBlur(drops, (0, 0), 1.5)[..., None]
        soft = cv2.GaussianBlur(x, (0, 0), rng.uniform(3, 7))
        x = x + (soft[::-1] * 0.3 + soft * 0.75 - x) * drops
    return x


def motion_blur(rng: Rng, x: Array) -> Array:
    """The camera turns while the shutter is open."""
    length = int(rng.integers(3, 14))
    kernel = np.zeros((length, length), np.float32)
    middle, angle = (length - 1) / 2, rng.choice((0.0, np.pi / 2)) + rng.normal(0, 0.3)
    dx, dy = middle * np.cos(angle), middle * np.sin(angle)
    start, end = (middle - dx, middle - dy), (middle + dx, middle + dy)
    points = [tuple(round(float(v)) for v in p) for p in (start, end)]
    cv2.line(kernel, *points, 1.0, 1)
    return cv2.filter2D(x, -1, kernel / kernel.sum())


def grey_camera(rng: Rng, x: Array) -> Array:
    """A monochrome or thermal-like camera: one channel mix, stretched, at times inverted."""
    mix = rng.dirichlet((1, 1, 1)).astype(np.float32)
    grey = x @ mix
    low, high = np.percentile(grey[::4, ::4], (1, 99))
    grey = (grey - low) / max(high - low, 0.05)
    if rng.random() < 0.25:
        grey = 1 - grey
    if rng.random() < 0.3:
        grey = cv2.GaussianBlur(np.ascontiguousarray(grey), (0, 0), rng.uniform(0.5, 2))
    return np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=2).astype(np.float32)
