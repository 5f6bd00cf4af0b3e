# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration: does a pixel of heatmap value 0.8 turn out unknown in 80 % of the cases?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.pixel_metrics import InputError, valid_pixels

BINS = 15
"""Of equal width over 0..1."""


class CalibrationMetrics:
    """
    Mergeable reliability counts of probabilities in steps of 1/255.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3, for the
    probability of being unknown.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros((256, 2), np.int64)

    def update(self, probability: Any, label: Any) -> None:
        """
        Add a frame.

        Args:
            probability: uint8 (H, W), 0..255 = 0..1, or floats 0..1.
            label: (H, W), 0 known, 1 unknown, 255 ignore.

        Raises:
            InputError: sizes differ, values outside 0..1, or a label is none of 0, 1, 255.
        """
        probability = np.asarray(probability)
        integer = probability.dtype == np.uint8
        values, unknown, _ = valid_pixels(probability, label)
        if not values.size:
            return
        if not integer:
            if values.min() < 0 or values.max() > 1:
                raise InputError(
                    f'probability: expected 0..1, got {values.min():g} to {values.max():g}'
                )
            values = np.rint(values * 255)
        key = values.astype(np.int64) * 2 + unknown
        self.counts += np.bincount(key, minlength=512).reshape(256, 2)

    def merge(self, other: CalibrationMetrics) -> CalibrationMetrics:
        """Add what another has counted; returns self."""
        # Not in place: what comes from another process may be read-only.
        self.counts = self.counts + other.counts
        return self

    def reliability(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Mean probability, share of unknown pixels and pixels of each bin that is not empty."""
        levels = np.arange(256)
        number = np.minimum(levels * BINS // 255, BINS - 1)
        total = np.bincount(number, self.counts.sum(1), BINS)
        mean = np.bincount(number, self.counts.sum(1) * levels, BINS) / 255
        unknown = np.bincount(number, self.counts[:, 1], BINS)
        used = total > 0
        return mean[used] / total[used], unknown[used] / total[used], total[used].astype(np.int64)

    def compute(self) -> dict[str, float]:
        """
        Figures so far.

        Returns:
            ``ece`` (expected calibration error, 0..1), ``mce`` (largest bin's error), ``brier``
            (mean squared error, 0..1); nan without pixels.
        """
        mean, share, total = self.reliability()
        if not total.size:
            return dict.fromkeys(('ece', 'mce', 'brier'), float('nan'))
        error = np.abs(mean - share)
        p = np.arange(256) / 255
        squares = self.counts[:, 1] * (1 - p) ** 2 + self.counts[:, 0] * p**2
        return {
            'ece': float(np.sum(error * total) / total.sum()),
            'mce': float(error.max()),
            'brier': float(squares.sum() / total.sum()),
        }
