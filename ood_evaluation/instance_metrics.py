# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Instance metrics: F1 at IoU 0.5, mean IoU of the found objects, recall of small ones, AP.

A prediction and a true object match at IoU >= threshold, best pairs first. Ignored pixels
leave both. A prediction without a match of which more than half lies on ignored pixels counts
neither way (the rule of Cityscapes' instance benchmark, on which OoDIS builds). AP is the area
under the precision-recall steps, without interpolation.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.pixel_metrics import IGNORE, InputError

SMALL = 32 * 32
"""Pixels below which an object is small."""

IOUS = np.linspace(0.5, 0.95, 10)
"""IoU thresholds over which `ap` is the mean."""


class InstanceMetrics:
    """
    Mergeable instance metrics.

    Args:
        smallest_truth: pixels; smaller true objects are ignored.
    """

    def __init__(self, smallest_truth: int = 1) -> None:
        self.smallest_truth = smallest_truth
        # One row a prediction: confidence, best-first IoU with its true object (-1: ignored).
        self._predictions: list[tuple[float, float]] = []
        # One row a true object: its size, IoU with its prediction.
        self._truths: list[tuple[int, float]] = []

    def update(
        self,
        predicted: Any,
        truth: Any,
        ignore: Any = None,
        confidences: dict[int, float] | None = None,
    ) -> list[tuple[int, int]]:
        """
        Add a frame.

        Args:
            predicted: (H, W) ids, 0 = none.
            truth: (H, W) ids, 0 = none.
            ignore: (H, W), 255 where pixels do not count, or None.
            confidences: of predicted ids, 0..1; 1 where missing.

        Returns:
            Matched (predicted id, true id).

        Raises:
            InputError: sizes differ.
        """
        predicted, truth = np.asarray(predicted), np.asarray(truth)
        if predicted.shape != truth.shape:
            raise InputError(
                f'predicted and true instances: sizes differ, got {predicted.shape} and '
                f'{truth.shape}'
            )
        void = np.zeros(truth.shape, bool) if ignore is None else np.asarray(ignore) == IGNORE
        if void.shape != truth.shape:
            raise InputError(f'ignore: expected shape {truth.shape}, got {void.shape}')
        ids, sizes = np.unique(truth[~void & (truth > 0)], return_counts=True)
        tiny = ids[sizes < self.smallest_truth]
        if tiny.size:
            void = void | np.isin(truth, tiny)
        matches, true_sizes, guessed_sizes = match(predicted, truth, ~void)
        found = dict(matches.values())
        self._truths += [(size, found.get(k, 0.0)) for k, size in true_sizes.items()]
        all_ids, whole = np.unique(predicted[predicted > 0], return_counts=True)
        for identity, size in zip(all_ids.tolist(), whole.tolist(), strict=True):
            _, iou = matches.get(identity, (0, 0.0))
            if iou or 2 * guessed_sizes.get(identity, 0) >= size:
                self._predictions.append(((confidences or {}).get(identity, 1.0), iou))
        return [(identity, true) for identity, (true, _) in matches.items()]

    def merge(self, other: InstanceMetrics) -> InstanceMetrics:
        """Add what another has counted; returns self. Raises ValueError: other sizes ignored."""
        if other.smallest_truth != self.smallest_truth:
            raise ValueError(
                f'smallest_truth: cannot merge {other.smallest_truth} into {self.smallest_truth}'
            )
        self._predictions += other._predictions
        self._truths += other._truths
        return self

    def compute(self) -> dict[str, float]:
        """
        Figures over all frames so far.

        Returns:
            ``f1``, ``precision``, ``recall`` at IoU 0.5, ``mean_iou`` of matched objects,
            ``recall_small`` (below 32x32 pixels), ``recall_large``, ``ap50``, ``ap`` (mean over
            IoU 0.50 to 0.95), ``truths``, ``small_truths``, ``predictions``; nan if undefined.
        """
        sizes = np.array([size for size, _ in self._truths])
        ious = np.array([iou for _, iou in self._truths])
        hit, small = ious >= IOUS[0], sizes < SMALL
        n, m, tp = len(self._truths), len(self._predictions), int(hit.sum())
        aps = [self._ap(t) for t in IOUS]
        return {
            'f1': _ratio(2 * tp, n + m),
            'precision': _ratio(tp, m),
            'recall': _ratio(tp, n),
            'mean_iou': _ratio(math.fsum(ious[hit]), tp),
            'recall_small': _ratio(int((hit & small).sum()), int(small.sum())),
            'recall_large': _ratio(int((hit & ~small).sum()), int((~small).sum())),
            'ap50': aps[0],
            'ap': float(np.mean(aps)),
            'truths': n,
            'small_truths': int(small.sum()),
            'predictions': m,
        }

    def _ap(self, threshold: float) -> float:
        if not self._truths:
            return float('nan')
        # Equal confidences are one step, as equal scores are in the pixel metrics.
        rows = sorted(self._predictions, reverse=True)
        confidence = np.array([c for c, _ in rows])
        tp = np.cumsum([iou >= threshold for _, iou in rows])
        last = np.append(confidence[1:] != confidence[:-1], True)[: len(rows)]
        tp, seen = tp[last], np.arange(1, len(rows) + 1)[last]
        return float(np.sum(np.diff(tp, prepend=0) * (tp / seen)) / len(self._truths))


def match(
    predicted: NDArray[Any], truth: NDArray[Any], counted: NDArray[np.bool_]
) -> tuple[dict[int, tuple[int, float]], Counter[int], Counter[int]]:
    """
    Match the objects of two id maps at IoU >= 0.5, best pairs first.

    Args:
        predicted: (H, W) ids, 0 = none.
        truth: (H, W) ids, 0 = none.
        counted: bool (H, W), pixels that count.

    Returns:
        Predicted id -> (true id, IoU), and the pixels that count of every true and predicted id.
    """
    a, b = predicted[counted].astype(np.int64), truth[counted].astype(np.int64)
    any_object = (a > 0) | (b > 0)
    keys, counts = np.unique((a[any_object] << 32) | b[any_object], return_counts=True)
    ids = (keys >> 32).tolist(), (keys & 0xFFFFFFFF).tolist()
    table = list(zip(*ids, counts.tolist(), strict=True))
    guessed: Counter[int] = Counter()
    true: Counter[int] = Counter()
    for i, k, count in table:
        guessed[i] += count
        true[k] += count
    del guessed[0], true[0]
    rows = [(-count / (guessed[i] + true[k] - count), i, k) for i, k, count in table if i and k]
    matches: dict[int, tuple[int, float]] = {}
    taken: set[int] = set()
    for negative, i, k in sorted(rows):
        # Only at exactly 0.5 can an object have two partners.
        if -negative >= IOUS[0] and i not in matches and k not in taken:
            matches[i] = k, -negative
            taken.add(k)
    return matches, true, guessed


def _ratio(a: float, b: float) -> float:
    return a / b if b else float('nan')
