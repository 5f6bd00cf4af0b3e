# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Procedural textures: noise fields and small colour patterns, all tileable, all from one seed."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

SIZE = 96
"""Pixels of a pattern's side."""


def noise(rng: Generator, height: int, width: int, cells: int = 4, octaves: int = 3) -> np.ndarray:
    """
    Smooth random field that tiles.

    Args:
        rng: source of randomness.
        height: rows.
        width: columns.
        cells: lattice cells along the shorter side in the coarsest octave.
        octaves: number of octaves, each of half the amplitude and twice the frequency.

    Returns:
        float32 (height, width) in 0..1.

    """
    total = np.zeros((height, width), np.float32)
    short = min(height, width)
    for octave in range(octaves):
        count = cells * 2**octave
        rows, columns = max(2, count * height // short), max(2, count * width // short)
        if rows >= height or columns >= width:
            total += rng.random((height, width), np.float32) * 0.5**octave
            continue
        grid = np.pad(rng.random((rows, columns), np.float32), 2, mode='wrap')
        step_y, step_x = height / rows, width / columns
        inverse = np.array([[1 / step_x, 0, 1.5], [0, 1 / step_y, 1.5]], np.float32)
        total += (
            cv2.warpAffine(
                grid, inverse, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            )
            * 0.5**octave
        )
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def colour(
    rng: Generator, saturation: float = 1.0, value: tuple[float, float] = (0.1, 0.95)
) -> np.ndarray:
    """Random colour, float32 (3,) RGB 0..1, of at most the given saturation."""
    hue, s = rng.random(), rng.random() ** 1.5 * saturation
    v = rng.uniform(*value)
    k = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    return (v - v * s * np.clip(np.minimum(k, 4 - k), 0, 1)).astype(np.float32)


def mix(mask: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Blend two colours by a 0..1 field: float32 (H, W, 3)."""
    return first + mask[..., None] * (second - first)


def _plain(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return mix(noise(rng, SIZE, SIZE, 3, 3) * rng.uniform(0.05, 0.25), a, b)


def _blotches(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    field = noise(rng, SIZE, SIZE, int(rng.integers(3, 8)), 3)
    return mix(np.clip((field - 0.5) * rng.uniform(3, 12) + 0.5, 0, 1), a, b)


def _stripes(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    n = int(rng.integers(2, 9))
    axis = (y, x, x + y)[int(rng.integers(3))]
    wave = np.sin(
        2 * np.pi * n * axis + (noise(rng, SIZE, SIZE, 3, 2) - 0.5) * rng.choice([0, 3.0])
    )
    return mix(np.clip(wave * 6 + 0.5, 0, 1).astype(np.float32), a, b)


def _checks(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    n = int(rng.integers(2, 8))
    y, x = np.mgrid[:SIZE, :SIZE] * n // SIZE
    soft = 1.0 if rng.random() < 0.5 else 0.5
    return mix((((x + y) % 2) * soft + (x % 2) * (1 - soft)).astype(np.float32), a, b)


def _dots(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    canvas = np.zeros((SIZE, SIZE), np.float32)
    n = int(rng.integers(2, 6))
    step = SIZE / n
    for i in range(n * n):
        centre = (int((i % n + 0.5) * step), int((i // n + 0.5) * step))
        cv2.circle(canvas, centre, int(step * 0.32), 1.0, -1, cv2.LINE_AA)
    return mix(canvas, a, b)


def _wood(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    field = cv2.resize(noise(rng, 8, SIZE, 8, 2), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    out = mix(np.clip(field, 0, 1), a, a * 0.55 + b * 0.1)
    planks = int(rng.integers(2, 6))
    for i in range(planks):
        out[:, i * SIZE // planks : i * SIZE // planks + 2] *= 0.45
    return out


def _bricks(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    rows = int(rng.integers(5, 10))
    out = np.empty((SIZE, SIZE, 3), np.float32)
    out[:] = b * 0.5 + 0.3
    step = SIZE // rows
    for row in range(rows + 1):
        for column in range(-1, 5):
            x = column * SIZE // 4 + (row % 2) * SIZE // 8
            tone = a * rng.uniform(0.75, 1.1)
            top = (x + 1, row * step + 1)
            cv2.rectangle(out, top, (x + SIZE // 4 - 2, row * step + step - 2), tone.tolist(), -1)
    return out * (0.85 + 0.15 * noise(rng, SIZE, SIZE, 12, 2)[..., None])


def _rust(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    brown = np.array([0.42, 0.22, 0.1], np.float32)
    mask = np.clip((noise(rng, SIZE, SIZE, 3, 4) - 0.55) * 8, 0, 1)
    return mix(mask, a, brown * rng.uniform(0.6, 1.2))


def _print(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.empty((SIZE, SIZE, 3), np.float32)
    out[:] = a
    for _ in range(int(rng.integers(2, 7))):
        tone = colour(rng, 1.0).tolist()
        x, y = (int(v) for v in rng.integers(4, SIZE - 30, 2))
        if rng.random() < 0.5:
            text = ''.join(rng.choice(list('ABCDEFGHKLMNRST0123456789'), int(rng.integers(2, 6))))
            cv2.putText(
                out, text, (x - 4, y + 14), 0, float(rng.uniform(0.4, 0.9)), tone, 2, cv2.LINE_AA
            )
        else:
            w, h = (int(v) for v in rng.integers(8, 40, 2))
            cv2.rectangle(out, (x, y), (x + w, y + h), tone, -1 if rng.random() < 0.6 else 2)
    return out


def _fur(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    hair = cv2.GaussianBlur(rng.random((SIZE, SIZE), np.float32), (1, 7), 0, sigmaY=2.5)
    hair = (hair - hair.min()) / (hair.max() - hair.min())
    patches = np.clip((noise(rng, SIZE, SIZE, 2, 2) - 0.5) * rng.choice([0, 9]) + 0.2, 0, 1)
    return mix(patches, a, b) * (0.6 + 0.6 * hair[..., None])


def _gradient(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    ramp = 0.5 - 0.5 * np.cos(np.linspace(0, 2 * np.pi, SIZE, dtype=np.float32))
    return mix(np.repeat(ramp[:, None], SIZE, 1), a, b)


def _grain(rng: Generator, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    speckle = cv2.GaussianBlur(rng.random((SIZE, SIZE), np.float32), (0, 0), rng.uniform(0.6, 1.6))
    return mix(np.clip((speckle - 0.5) * 4 + 0.5, 0, 1), a, a * 0.6 + b * 0.4)


PATTERNS: dict[str, Callable[[Generator, np.ndarray, np.ndarray], np.ndarray]] = {
    'plain': _plain,
    'blotches': _blotches,
    'stripes': _stripes,
    'checks': _checks,
    'dots': _dots,
    'wood': _wood,
    'bricks': _bricks,
    'rust': _rust,
    'print': _print,
    'fur': _fur,
    'gradient': _gradient,
    'grain': _grain,
}
"""Name -> function of (rng, first colour, second colour)."""


def pattern(
    rng: Generator,
    kind: str = '',
    first: np.ndarray | None = None,
    second: np.ndarray | None = None,
) -> np.ndarray:
    """
    Make one pattern.

    Args:
        rng: source of randomness.
        kind: entry of `PATTERNS`, '' for a random one.
        first: main colour (3,) 0..1, None for a random one.
        second: other colour, None for a random one.

    Returns:
        float32 (SIZE, SIZE, 3) RGB, 0..1, tileable or nearly so.

    """
    kind = kind or str(rng.choice(list(PATTERNS)))
    a = colour(rng) if first is None else np.asarray(first, np.float32)
    b = colour(rng) if second is None else np.asarray(second, np.float32)
    return np.clip(PATTERNS[kind](rng, a, b), 0, 1).astype(np.float32)
