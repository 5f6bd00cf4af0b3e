# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Figures by condition: distance, size and place in the image of what is unknown, and named tracks.

Distances come from a depth image or, for a rendered drive, from the renderer. Without them the row
of the image stands in for the distance, and the report's rows say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.evaluation.pixel_metrics import IGNORE, PixelMetrics

if TYPE_CHECKING:
    from ood_perception.evaluation.frame import Frame

SIZES = ((0, 32**2, 'below 32x32'), (32**2, 96**2, '32x32 to 96x96'), (96**2, 1 << 62, 'larger'))
"""Pixels from, pixels below, name: the breakdown by size of the true object."""

DISTANCES = (
    (0.0, 10.0, 'nearer than 10 m'),
    (10.0, 20.0, '10 to 20 m'),
    (20.0, 40.0, '20 to 40 m'),
    (40.0, float('inf'), '40 m and farther'),
)
"""Metres from, metres below, name."""

ROWS = ('upper', 'middle', 'lower')
"""Thirds of the image, where no distance is known: on flat ground, lower is nearer."""

FAR = 'distance unknown'


class Breakdown:
    """
    Mergeable figures of parts of the frames.

    Args:
        mode: of the `PixelMetrics`.
        smallest: pixels below which a true object does not count.
    """

    def __init__(self, mode: str = 'streaming', smallest: int = 1) -> None:
        self.mode, self.smallest = mode, smallest
        self.pixels: dict[str, PixelMetrics] = {}
        # (row of the table, found or not): true objects.
        self.objects: Counter[tuple[str, bool]] = Counter()

    def add_pixels(self, score: Any, label: Any, frame: Frame) -> None:
        """Add the pixels of a frame whose score and label are known to fit together."""
        if frame.condition:
            self._part(frame.condition).update(score, label)
        label = np.asarray(label)
        if frame.distance is not None and frame.distance.shape == label.shape:
            for low, high, name in DISTANCES:
                # 0 and nan mean that it is unknown.
                inside = (frame.distance >= low) & (frame.distance < high) & (frame.distance > 0)
                if inside.any():
                    self._part(f'pixels {name}').update(np.asarray(score)[inside], label[inside])
        elif frame.truth is None and not frame.distances:
            # With ids, objects tell more than pixels.
            edges = np.linspace(0, len(label), len(ROWS) + 1).round().astype(int)
            for name, low, high in zip(ROWS, edges[:-1], edges[1:], strict=True):
                part = self._part(f'pixels in the {name} third of the image')
                part.update(np.asarray(score)[low:high], label[low:high])

    def _part(self, name: str) -> PixelMetrics:
        return self.pixels.setdefault(name, PixelMetrics(self.mode))

    def add_objects(self, frame: Frame, found: Iterable[int]) -> None:
        """Add the true objects of a frame; `found` holds the ids of those that were matched."""
        truth = np.asarray(frame.truth)
        if frame.anomaly is not None:
            truth = np.where(frame.anomaly == IGNORE, 0, truth)
        hits = set(found)
        pixels = np.flatnonzero(truth)
        if not pixels.size:
            return
        ids, where, sizes = np.unique(
            truth.ravel()[pixels], return_inverse=True, return_counts=True
        )
        feet = np.zeros(len(ids), np.int64)
        np.maximum.at(feet, where, pixels // truth.shape[1])
        distances = object_distances(frame, truth, ids)
        for n, (identity, size) in enumerate(zip(ids.tolist(), sizes.tolist(), strict=True)):
            if size < self.smallest:
                continue
            hit = identity in hits
            self.objects[f'objects {_bin(SIZES, size)}', hit] += 1
            if distances is None:
                third = ROWS[int(feet[n] * len(ROWS) // len(truth))]
                row = f'objects whose foot is in the {third} third of the image'
            elif np.isfinite(distances[n]):
                row = f'objects {_bin(DISTANCES, distances[n])}'
            else:
                row = f'objects, {FAR}'
            self.objects[row, hit] += 1

    def merge(self, other: Breakdown) -> Breakdown:
        """Add what another has collected; returns self."""
        for name, part in other.pixels.items():
            self._part(name).merge(part)
        self.objects.update(other.objects)
        return self

    def rows(self) -> list[tuple[str, dict[str, Any]]]:
        """(Condition, figures) for the report: tracks, then pixels, then objects."""
        made: list[tuple[str, dict[str, Any]]] = []
        order = [f'pixels {name}' for *_, name in DISTANCES]
        order += [f'pixels in the {name} third of the image' for name in ROWS]
        tracks = sorted(set(self.pixels) - set(order))
        for name in [*tracks, *(n for n in order if n in self.pixels)]:
            figures: dict[str, Any] = self.pixels[name].compute()
            if not figures['positives']:
                figures['ap'] = float('nan')  # nothing to be found is no failure to find it
            chosen = ('ap', 'fpr95', 'auroc', 'frames')
            made.append((name, {key: figures[key] for key in chosen}))
        order = [f'objects {name}' for *_, name in (*DISTANCES, *SIZES)]
        order += [f'objects, {FAR}']
        order += [f'objects whose foot is in the {name} third of the image' for name in ROWS]
        for name in order:
            hit, missed = self.objects[name, True], self.objects[name, False]
            if hit + missed:
                made.append((name, {'objects': hit + missed, 'recall': hit / (hit + missed)}))
        return made


def object_distances(
    frame: Frame, truth: NDArray[Any], ids: NDArray[Any]
) -> NDArray[np.float64] | None:
    """
    Distance of each true object: the renderer's, else the median of the depth image on it.

    Returns:
        Metres (N,), nan where unknown; None where the frame has neither.
    """
    if frame.distances:
        known = frame.distances
        return np.array([known.get(int(i), float('nan')) for i in ids])
    depth = frame.distance
    if depth is None or depth.shape != truth.shape:
        return None
    found = np.full(len(ids), np.nan)
    for n, identity in enumerate(ids):
        values = depth[truth == identity]
        values = values[np.isfinite(values) & (values > 0)]
        if values.size:
            found[n] = np.median(values)
    return found


def _bin(bins: Iterable[tuple[float, float, str]], value: float) -> str:
    return next(name for low, high, name in bins if low <= value < high)
