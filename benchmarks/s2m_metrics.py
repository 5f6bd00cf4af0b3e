# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
AuIoU, IoU and mean F1 of S2M (Zhao et al., CVPR 2024), as its code computes them and corrected.

For thresholds t = 0, 0.01, ... 1, prediction = score > t; IoU and F1 of every image are averaged
over the images. As coded, ignored pixels count as known, an image without unknown pixels gets 0
even when nothing is predicted, and the printed IoU is the best over the thresholds. The corrected
figures leave ignored pixels out, give an image with nothing to find and nothing found 1, and take
the IoU at threshold 0, which is the threshold-free union of all masks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.pixel_metrics import IGNORE, UNKNOWN, InputError

THRESHOLDS = np.arange(0, 1.01, 0.01)


class S2MMetrics:
    """Mergeable; keeps 101 counts a frame."""

    def __init__(self) -> None:
        # Per frame: (as coded, corrected) x (intersection, union) x thresholds.
        self._counts: list[NDArray[np.int64]] = []

    def update(self, score: Any, label: Any) -> None:
        """
        Add a frame.

        Args:
            score: (H, W) floats 0..1, 0 = in no mask.
            label: (H, W), 0 known, 1 unknown, 255 ignore.

        Raises:
            InputError: sizes differ, or scores that are not finite.

        """
        score, label = np.asarray(score), np.asarray(label)
        if score.shape != label.shape:
            raise InputError(f'score and label: sizes differ, got {score.shape} and {label.shape}')
        if score.dtype.kind != 'f':
            score = score.astype(np.float64)
        if not np.isfinite(score).all():
            raise InputError('score: expected finite numbers, got NaN or infinity')
        # The type in which numpy compares an array with one threshold.
        edges = THRESHOLDS.astype(np.result_type(score, THRESHOLDS[1]))
        # Number of thresholds below each score: it is predicted at just those.
        below = np.searchsorted(edges, score.ravel(), side='left')
        unknown, void = (label == UNKNOWN).ravel(), (label == IGNORE).ravel()

        def above(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
            counts = np.bincount(below[mask], minlength=len(edges) + 1)
            return np.cumsum(counts[::-1])[::-1][1:]

        hit, size = above(unknown), int(unknown.sum())
        coded, clean = above(~unknown), above(~unknown & ~void)
        self._counts.append(np.array([[hit, coded + size], [hit, clean + size]]))

    def merge(self, other: S2MMetrics) -> S2MMetrics:
        """Add the frames of another; returns self."""
        self._counts += other._counts
        return self

    def compute(self) -> dict[str, float]:
        """
        Figures so far.

        Returns:
            ``auiou``, ``iou`` (best mean over the thresholds), ``mean_f1`` as coded;
            ``auiou_corrected``, ``iou_corrected`` (at threshold 0), ``mean_f1_corrected``. All
            fractions 0..1, nan without frames.

        """
        names = ('auiou', 'iou', 'mean_f1')
        if not self._counts:
            keys = [*names, *(f'{name}_corrected' for name in names)]
            return dict.fromkeys(keys, float('nan'))
        counts = np.stack(self._counts)
        figures: dict[str, float] = {}
        for column, (suffix, empty) in enumerate((('', 0.0), ('_corrected', 1.0))):
            both, union = counts[:, column, 0], counts[:, column, 1]
            iou = np.divide(both, union, out=np.full(both.shape, empty), where=union > 0)
            total = both + union
            f1 = np.divide(2 * both, total, out=np.full(both.shape, empty), where=total > 0)
            mean_iou, mean_f1 = _means(iou), _means(f1)
            steps = np.diff(THRESHOLDS) * (mean_iou[1:] + mean_iou[:-1]) / 2
            figures[f'auiou{suffix}'] = float(steps.sum())
            figures[f'iou{suffix}'] = float(mean_iou[0] if suffix else mean_iou.max())
            figures[f'mean_f1{suffix}'] = float(mean_f1.mean())
        return figures


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the frames, rounded once so that their order cannot show."""
    return np.array([math.fsum(column) / len(values) for column in values.T])
