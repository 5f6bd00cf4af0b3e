# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Parts of an image as polygons: text ``'x,y x,y x,y ...'`` in shares 0..1 of width and height."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray


def corners(text: str) -> NDArray[np.float64]:
    """Read float64 (N, 2) of x, y in 0..1, N >= 3. Raises ValueError, which quotes the text."""
    try:
        points = np.array([[float(v) for v in pair.split(',')] for pair in text.split()])
    except ValueError:
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise ValueError(f"expected a polygon such as '0,0.9 1,0.9 1,1 0,1', got {text!r}")
    if not ((points >= 0) & (points <= 1)).all():
        raise ValueError(
            f'the zone {text!r} leaves the image: x and y are shares 0..1 of width and height'
        )
    if not cv2.contourArea(points.astype(np.float32)) > 0:
        raise ValueError(f'the zone {text!r} has no area')
    return points


@functools.lru_cache(maxsize=32)
def inside(zones: tuple[str, ...], height: int, width: int) -> NDArray[np.bool_]:
    """Pixels within any zone, bool (height, width), not to be written to; ValueError as above."""
    canvas = np.zeros((height, width), np.uint8)
    for zone in zones:
        points = np.floor(corners(zone) * (width, height)).astype(np.int32)
        cv2.fillPoly(canvas, [points], (1,))
    found = canvas > 0
    found.flags.writeable = False
    return found


def named(zones: Sequence[str]) -> tuple[str, ...]:
    """Zones without empty texts, which stand for none."""
    return tuple(zone for zone in zones if zone.strip())


def mostly_inside(instances: NDArray[np.uint16], zone: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Ids of the objects of (H, W) instances that have at least half of their pixels in a zone."""
    total = np.bincount(instances.ravel(), minlength=1)
    part = np.bincount(instances[zone], minlength=len(total))
    found = np.flatnonzero((total > 0) & (2 * part >= total))
    return found[found > 0]
