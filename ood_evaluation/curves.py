# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Precision-recall and ROC curves from counts per threshold, and the figures read off them."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIGURES = ('ap', 'fpr95', 'auroc', 'best_f1', 'best_f1_threshold')
"""Keys of :meth:`Curve.figures`, all fractions 0..1 but the threshold."""


@dataclass(frozen=True)
class Curve:
    """
    Counts at every distinct threshold t, from the highest down; a pixel is positive at score >= t.
    """

    thresholds: NDArray[np.floating]  # float (N,), strictly decreasing, in the unit of the score
    tp: NDArray[np.int64]  # int64 (N,), unknown pixels at or above the threshold
    fp: NDArray[np.int64]  # int64 (N,), known pixels at or above the threshold
    positives: int  # unknown pixels in all
    negatives: int  # known pixels in all

    @property
    def precision(self) -> NDArray[np.float64]:
        """TP / (TP + FP), float64 (N,); 1 where nothing is predicted."""
        predicted = self.tp + self.fp
        return np.divide(self.tp, predicted, out=np.ones(len(predicted)), where=predicted > 0)

    @property
    def recall(self) -> NDArray[np.float64]:
        """TP / positives = TPR, float64 (N,); nan without positives."""
        return self.tp / self.positives if self.positives else np.full(len(self.tp), np.nan)

    @property
    def fpr(self) -> NDArray[np.float64]:
        """FP / negatives, float64 (N,); nan without negatives."""
        return self.fp / self.negatives if self.negatives else np.full(len(self.fp), np.nan)

    def figures(self) -> dict[str, float]:
        """
        Read the figures off.

        Returns:
            ``ap`` by the step rule sum (R_n - R_n-1) P_n (0 without positives, as scikit-learn has
            it, and nan without pixels), ``fpr95`` = FPR at the first threshold from above with
            TPR >= 0.95 (no interpolation), ``auroc`` by trapezoids, ``best_f1`` and the highest
            threshold that reaches it. What one class alone leaves undefined is nan.
        """
        if not len(self.thresholds):
            return dict.fromkeys(FIGURES, float('nan'))
        recall, fpr, both = self.recall, self.fpr, self.positives > 0 and self.negatives > 0
        # 2 TP / (2 TP + FP + FN); no threshold is above every score, so nothing is divided by 0
        f1 = 2 * self.tp / (self.tp + self.fp + self.positives)
        ap = np.sum(np.diff(recall, prepend=0.0) * self.precision) if self.positives else 0.0
        auroc = fpr95 = float('nan')
        if both:
            tpr = np.concatenate([[0.0], recall])
            auroc = float(np.sum(np.diff(fpr, prepend=0.0) * (tpr[1:] + tpr[:-1]) / 2))
            fpr95 = float(fpr[np.searchsorted(recall, 0.95)])
        best = int(np.argmax(f1))
        return {
            'ap': float(ap),
            'fpr95': fpr95,
            'auroc': auroc,
            'best_f1': float(f1[best]),
            'best_f1_threshold': float(self.thresholds[best]) if self.positives else float('nan'),
        }

    def bounds(self) -> dict[str, float]:
        """
        Exact bounds of what the figures would be without binning.

        Inside a bin of N+ unknown and N- known pixels their order is lost; the best order has all
        unknown pixels first, the worst all known ones.

        Returns:
            ``ap_low``, ``ap_high``, ``fpr95_low``, ``fpr95_high``.
        """
        names = ('ap_low', 'ap_high', 'fpr95_low', 'fpr95_high')
        if not (self.positives and self.negatives):
            return dict.fromkeys(names, float('nan'))
        before = np.concatenate([[0], self.fp[:-1]])
        found = np.diff(self.tp, prepend=0)
        high = _harmonic_ap(self.tp - found, found, before) / self.positives
        low = _harmonic_ap(self.tp - found, found, self.fp) / self.positives
        at = int(np.searchsorted(self.recall, 0.95))
        fprs = float(before[at] / self.negatives), float(self.fp[at] / self.negatives)
        return dict(zip(names, (low, high, *fprs), strict=True))

    def thinned(self, points: int = 500) -> Curve:
        """At most about `points` of the curve, evenly along it in recall and FPR; for drawing."""
        if len(self.thresholds) <= points:
            return self
        way = np.abs(np.diff(self.tp, prepend=0)) / max(self.positives, 1)
        way = np.cumsum(way + np.abs(np.diff(self.fp, prepend=0)) / max(self.negatives, 1))
        picked = np.searchsorted(way, np.linspace(0, way[-1], points - 1))
        keep = np.unique(np.concatenate([[0], np.minimum(picked, len(way) - 1), [len(way) - 1]]))
        return Curve(
            self.thresholds[keep], self.tp[keep], self.fp[keep], self.positives, self.negatives
        )


def curve_of(
    thresholds: NDArray[np.floating], positive: NDArray[Any], negative: NDArray[Any]
) -> Curve:
    """
    Curve from counts per threshold in any order; counts of equal thresholds are added.

    Args:
        thresholds: float (N,), lower edge of the scores counted there, or single scores.
        positive: int or bool (N,), unknown pixels counted at each.
        negative: int or bool (N,), known pixels counted at each.
    """
    order = np.argsort(thresholds)[::-1]
    thresholds = thresholds[order]
    last = np.ones(len(thresholds), bool)
    last[:-1] = thresholds[1:] != thresholds[:-1]
    tp, fp = (np.cumsum(n[order], dtype=np.int64)[last] for n in (positive, negative))
    positives, negatives = (int(tp[-1]), int(fp[-1])) if len(tp) else (0, 0)
    return Curve(thresholds[last], tp, fp, positives, negatives)


def _harmonic_ap(
    before: NDArray[np.int64], found: NDArray[np.int64], false: NDArray[np.int64]
) -> float:
    """Sum of precisions when `found` positives follow `before`, with `false` ahead of each."""
    import torch

    keep = found > 0
    a, k, f = (torch.from_numpy(n[keep]).double() for n in (before, found, false))
    # sum_{i=1..k} (a + i) / (a + i + f) = k - f * (psi(a + f + k + 1) - psi(a + f + 1))
    precisions = k - f * (torch.digamma(a + f + k + 1) - torch.digamma(a + f + 1))
    return fsum(precisions.tolist())
