# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Pixel metrics AP, FPR95, AUROC and best F1, equal to what the benchmarks' own code prints.

    metrics = PixelMetrics('exact')
    for score, label in frames:
        metrics.update(score, label)
    metrics.compute()['ap']

| mode | rule | memory |
|---|---|---|
| exact | every distinct score is a threshold: scikit-learn, Fishyscapes | all pixels |
| smiyc | quantile bins a frame (SegmentMeIfYouCan, code of 2023) | 18 KB a frame |
| uem | as `exact` after a float32 sigmoid (the numbers of the UEM paper) | all pixels |
| streaming | one histogram over 2**20 float bins, with its error bounds | 16 MB |
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.curves import Curve, curve_of
from ood_perception.labels import Truth

MODES = ('exact', 'smiyc', 'uem', 'streaming')
KNOWN, UNKNOWN, IGNORE = Truth.KNOWN, Truth.UNKNOWN, Truth.IGNORE
"""Values of a label."""

QUANTILES = 384
"""Of `smiyc`: quantiles of each class in a frame, evenly spaced from 0 to 1; never more than the
class has pixels."""

STREAM_BITS = 20
"""Of `streaming`: leading bits of a float32 that tell its bin (sign, exponent, 11 of mantissa)."""

FLUSH = 4_000_000
"""Pixels that wait before they are put into the histogram together."""


class InputError(ValueError):
    """A score and a label that cannot be evaluated together; the text says what was got."""


def valid_pixels(score: Any, label: Any) -> tuple[NDArray[Any], NDArray[np.bool_], int]:
    """
    Scores and classes of the pixels that count.

    Args:
        score: (H, W) numbers, higher = more unknown; array or tensor.
        label: (H, W), 0 known, 1 unknown, 255 ignore.

    Returns:
        The scores (N,) in floating point with infinities clipped to the largest float32, whether
        each is unknown (N,), and the number of scores that are NaN and left out.

    Raises:
        InputError: sizes differ, scores are no real numbers, or a label is none of 0, 1, 255.
    """
    score, label = np.asarray(score), np.asarray(label)
    if score.shape != label.shape:
        raise InputError(f'score and label: sizes differ, got {score.shape} and {label.shape}')
    if score.dtype.kind not in 'fiub':
        raise InputError(f'score: expected real numbers, got {score.dtype}')
    if label.dtype == bool:
        label = label.view(np.uint8)
    unknown = label == UNKNOWN
    counted = unknown | (label == KNOWN)
    if not (counted | (label == IGNORE)).all():
        others = np.setdiff1d(label, [KNOWN, UNKNOWN, IGNORE])[:5].tolist()
        raise InputError(f'label: expected only 0, 1 and 255, got also {others}')
    score, unknown = score[counted], unknown[counted]
    if score.dtype.kind != 'f':
        score = score.astype(np.float32)
    missing = 0
    if not np.isfinite(score).all():
        good = ~np.isnan(score)
        missing = int(score.size - np.count_nonzero(good))
        largest = float(np.finfo(np.float32).max)
        # A half cannot hold the largest float32, and the clip must keep the order.
        wide = np.float64 if score.dtype == np.float64 else np.float32
        score = np.clip(score[good].astype(wide), -largest, largest)
        unknown = unknown[good]
    return score, unknown, missing


class PixelMetrics:
    """
    One-pass, mergeable pixel metrics.

    Args:
        mode: one of `MODES`, see the module.

    Attributes:
        frames: number of frames given.
        void_frames: frames without any pixel that counts.
        nan_pixels: scores that were NaN; they are left out.

    Raises:
        ValueError: unknown mode.
    """

    def __init__(self, mode: str = 'exact') -> None:
        if mode not in MODES:
            raise ValueError(f'mode: expected one of {", ".join(MODES)}, got {mode!r}')
        self.mode = mode
        self.frames = self.void_frames = self.nan_pixels = 0
        # per frame (thresholds, unknown, known pixels), in exact and uem one for each pixel
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._histogram: NDArray[np.int64] | None = None
        self._waiting: list[NDArray[np.uint32]] = []

    def update(self, score: Any, label: Any) -> None:
        """Add a frame, given as to :func:`valid_pixels`; where that raises, nothing was added."""
        scores, unknown, missing = valid_pixels(score, label)
        self.frames += 1
        self.nan_pixels += missing
        if not scores.size:
            self.void_frames += 1
            return
        if self.mode == 'smiyc':
            self._parts.append(quantile_counts(scores, unknown))
        elif self.mode == 'streaming':
            self._waiting.append(float_bin(scores) * np.uint32(2) + unknown)
            if sum(map(len, self._waiting)) >= FLUSH:
                self._flush()
        else:
            if self.mode == 'uem':
                scores = saturating_sigmoid(scores)
            self._parts.append((scores, unknown, ~unknown))

    def merge(self, other: PixelMetrics) -> PixelMetrics:
        """Add what another of the same mode has counted, as if given here; returns self."""
        if other.mode != self.mode:
            raise ValueError(f'mode: cannot merge {other.mode!r} into {self.mode!r}')
        self.frames += other.frames
        self.void_frames += other.void_frames
        self.nan_pixels += other.nan_pixels
        self._parts += other._parts
        if self.mode == 'streaming':
            histogram = self._flush()
            histogram += other._flush()
        return self

    def curves(self) -> Curve:
        """Counts, precision, recall and FPR at every threshold, from the highest down."""
        if self.mode == 'streaming':
            used, counts = _filled(self._flush())
            return curve_of(bin_floor(used.astype(np.uint32)), counts[:, 1], counts[:, 0])
        parts = self._parts or [(np.zeros(0),) * 3]
        return curve_of(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def compute(self) -> dict[str, float]:
        """
        Figures over all frames so far.

        Returns:
            ``ap``, ``fpr95``, ``auroc``, ``best_f1`` (fractions 0..1), ``best_f1_threshold`` (unit
            of the score), ``positives``, ``negatives``, ``frames``, ``void_frames``,
            ``nan_pixels``; for `streaming` also ``ap_low``, ``ap_high``, ``fpr95_low`` and
            ``fpr95_high``, between which the exact figures lie. Undefined figures are nan.
        """
        curve = self.curves()
        figures: dict[str, float] = curve.figures()
        if self.mode == 'streaming':
            figures |= curve.bounds()
        return figures | {
            'positives': curve.positives,
            'negatives': curve.negatives,
            'frames': self.frames,
            'void_frames': self.void_frames,
            'nan_pixels': self.nan_pixels,
        }

    def _flush(self) -> NDArray[np.int64]:
        """Histogram with the waiting pixels put into it."""
        if self._histogram is None:
            self._histogram = np.zeros((1 << STREAM_BITS, 2), np.int64)
        if self._waiting:
            keys = np.concatenate(self._waiting)
            self._histogram += np.bincount(keys, minlength=2 << STREAM_BITS).reshape(-1, 2)
            self._waiting.clear()
        return self._histogram

    def __getstate__(self) -> dict[str, Any]:
        """Sparse histogram, so that a worker sends kilobytes."""
        state = dict(self.__dict__)
        if self.mode == 'streaming':
            state |= {'_histogram': _filled(self._flush()), '_waiting': []}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.mode == 'streaming':
            used, counts = state['_histogram']
            self._histogram = np.zeros((1 << STREAM_BITS, 2), np.int64)
            self._histogram[used] = counts


def _filled(histogram: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    used = np.flatnonzero(histogram.any(1))
    return used, histogram[used]


def quantile_counts(
    scores: NDArray[Any], unknown: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """
    Bin one frame as SegmentMeIfYouCan does (code of 2023-08-24).

    Edges are the distinct values of min(384, n) quantiles of the n unknown pixels' scores, as many
    of the known ones', min - eps and max + eps, with eps = max(1 % of the range, 0.01).

    Args:
        scores: (N,) finite, N > 0.
        unknown: (N,).

    Returns:
        Lower edges float64 (B,), and the unknown and the known pixels in each bin, int64 (B,).
    """
    if np.abs(scores).max() > 1e30:
        scores = scores.astype(np.float64)  # a range beyond float32
    classes = scores[unknown], scores[~unknown]
    low, high = float(scores.min()), float(scores.max())
    margin = max(0.01 * (high - low), 0.01)
    quantiles = [
        np.quantile(values, np.linspace(0, 1, min(QUANTILES, values.size)))
        for values in classes
        if values.size
    ]
    edges = np.unique(np.concatenate([*quantiles, [low - margin, high + margin]]))
    positive, negative = (np.histogram(values, edges)[0] for values in classes)
    return edges[:-1], positive.astype(np.int64), negative.astype(np.int64)


def saturating_sigmoid(scores: NDArray[Any]) -> NDArray[np.float32]:
    """
    Float32 sigmoid of a frame's scores, unless all lie in 0..1 already.

    torchmetrics does so to what it takes for logits; scores above about 17 all become 1.0 and tie,
    which is part of the published numbers of UEM.
    """
    import torch

    scores = np.ascontiguousarray(scores, np.float32)
    if scores.min() >= 0 and scores.max() <= 1:
        return scores
    return torch.from_numpy(scores).sigmoid().numpy()


def float_bin(scores: NDArray[Any]) -> NDArray[np.uint32]:
    """
    Bin of each score: the leading bits of its float32, in the order of the numbers.

    A bin spans 2**-11 of its lower edge's power of two, so scores that differ by more than 0.05 %
    are never confused, whatever their unit.
    """
    # Adding zero makes -0 the same as 0.
    bits = np.add(scores, 0, dtype=np.float32, casting='same_kind').view(np.int32)
    np.bitwise_xor(bits, (bits >> 31) & np.int32(0x7FFFFFFF), out=bits)
    bits >>= 32 - STREAM_BITS
    bits += np.int32(1 << (STREAM_BITS - 1))
    return bits.view(np.uint32)


def bin_floor(index: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Smallest float32 of each bin of :func:`float_bin`."""
    bits = (index.astype(np.int64) - (1 << (STREAM_BITS - 1))) << (32 - STREAM_BITS)
    bits = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return bits.astype(np.int32).view(np.float32)
