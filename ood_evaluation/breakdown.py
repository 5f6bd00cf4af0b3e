# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Figures by condition: distance, size and place in the image of what is unknown.

Distances come from a depth image or, for a rendered drive, from the renderer. Without them the row
of the image stands in for the distance, and the report's rows say so.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.frame import Frame
from ood_evaluation.pixel_metrics import IGNORE, PixelMetrics

SIZES = ('below 32x32', '32x32 to 96x96', 'larger')
PIXELS = (32**2, 96**2)
"""From which a true object is of the second and the third size."""

DISTANCES = ('nearer than 10 m', '10 to 20 m', '20 to 40 m', '40 m and farther')
METRES = (10.0, 20.0, 40.0)
"""From which the second distance and the following begin."""

THIRDS = ('upper', 'middle', 'lower')
"""Of the image, where no distance is known: on flat ground, lower is nearer."""

PIXELS_IN = 'pixels in the {} third of the image'
FOOT_IN = 'objects whose foot is in the {} third of the image'
FAR = 'objects, distance unknown'

PIXEL_ROWS = (*(f'pixels {name}' for name in DISTANCES), *map(PIXELS_IN.format, THIRDS))
OBJECT_ROWS = (
    *(f'objects {name}' for name in (*DISTANCES, *SIZES)),
    FAR,
    *map(FOOT_IN.format, THIRDS),
)


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
        score, label = np.asarray(score), np.asarray(label)
        if frame.distance is not None and frame.distance.shape == label.shape:
            known = np.isfinite(frame.distance) & (frame.distance > 0)
            bins = np.digitize(frame.distance, METRES)
            for number, name in enumerate(DISTANCES):
                inside = known & (bins == number)
                if inside.any():
                    self._part(f'pixels {name}').update(score[inside], label[inside])
        elif frame.truth is None and not frame.distances:
            # With ids, objects tell more than pixels.
            edges = np.linspace(0, len(label), len(THIRDS) + 1).round().astype(int)
            for name, low, high in zip(THIRDS, edges[:-1], edges[1:], strict=True):
                self._part(PIXELS_IN.format(name)).update(score[low:high], label[low:high])

    def _part(self, name: str) -> PixelMetrics:
        return self.pixels.setdefault(name, PixelMetrics(self.mode))

    def add_objects(self, frame: Frame, found: Container[int]) -> None:
        """Add the true objects of a frame; `found` holds the ids of those that were matched."""
        truth = np.asarray(frame.truth)
        if frame.anomaly is not None:
            truth = np.where(frame.anomaly == IGNORE, 0, truth)
        pixels = np.flatnonzero(truth)
        ids, where, sizes = np.unique(
            truth.ravel()[pixels], return_inverse=True, return_counts=True
        )
        feet = np.zeros(len(ids), np.int64)
        np.maximum.at(feet, where, pixels // truth.shape[1])
        for identity, size, foot in zip(ids.tolist(), sizes.tolist(), feet.tolist(), strict=True):
            if size < self.smallest:
                continue
            metres = _distance(frame, truth, identity)
            if metres is None:
                row = FOOT_IN.format(THIRDS[foot * len(THIRDS) // len(truth)])
            elif np.isfinite(metres):
                row = f'objects {DISTANCES[bisect_right(METRES, metres)]}'
            else:
                row = FAR
            for name in (f'objects {SIZES[bisect_right(PIXELS, size)]}', row):
                self.objects[name, identity in found] += 1

    def merge(self, other: Breakdown) -> Breakdown:
        """Add what another has collected; returns self."""
        for name, part in other.pixels.items():
            self._part(name).merge(part)
        self.objects.update(other.objects)
        return self

    def rows(self) -> list[tuple[str, dict[str, Any]]]:
        """(Condition, figures) for the report: pixels, then objects."""
        made: list[tuple[str, dict[str, Any]]] = []
        for name in PIXEL_ROWS:
            if name in self.pixels:
                figures: dict[str, Any] = self.pixels[name].compute()
                if not figures['positives']:
                    figures['ap'] = float('nan')  # nothing to be found is no failure to find it
                made.append((name, {k: figures[k] for k in ('ap', 'fpr95', 'auroc', 'frames')}))
        for name in OBJECT_ROWS:
            hit, missed = self.objects[name, True], self.objects[name, False]
            if hit + missed:
                made.append((name, {'objects': hit + missed, 'recall': hit / (hit + missed)}))
        return made


def _distance(frame: Frame, truth: NDArray[Any], identity: int) -> float | None:
    """
    Distance of a true object: the renderer's, else the median of the depth image on it.

    Returns:
        Metres, nan where unknown; None where the frame has neither.
    """
    if frame.distances:
        return frame.distances.get(identity, float('nan'))
    if frame.distance is None or frame.distance.shape != truth.shape:
        return None
    values = frame.distance[truth == identity]
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.median(values)) if values.size else float('nan')
