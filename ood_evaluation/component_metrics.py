# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Component metrics sIoU, PPV and F1* of SegmentMeIfYouCan (code of 2023-08-24).

Chan et al., "SegmentMeIfYouCan: A Benchmark for Anomaly Segmentation", NeurIPS 2021, eq. 3-5.
One count over pairs (true component, predicted component) gives every figure of a frame.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_evaluation.pixel_metrics import (
    IGNORE,
    UNKNOWN,
    InputError,
    PixelMetrics,
    valid_pixels,
)

TAUS = np.linspace(0.25, 0.75, 11, endpoint=True)
"""Values of sIoU and PPV from which a component counts as found."""

IN_MEMORY = 128 << 20
"""Bytes of frames that wait for a threshold before they go to a temporary file."""


@dataclass(frozen=True)
class Track:
    """Sizes below which components do not count; exactly that size stays."""

    smallest_prediction: int  # pixels; smaller predicted components are deleted
    smallest_truth: int  # pixels; smaller true components are ignored


TRACKS = {'anomaly': Track(500, 100), 'obstacle': Track(50, 10)}
"""The benchmark's two tracks."""


class ComponentMetrics:
    """
    Mergeable component metrics.

    Without a threshold, frames given as scores wait (beyond 128 MB in a temporary file) until
    :meth:`compute`, which takes the best-F1 threshold over all of them, as the benchmark does. Who
    reads the frames twice needs no waiting: first ``PixelMetrics('smiyc')``, then
    ``ComponentMetrics(track, threshold=pixel.compute()['best_f1_threshold'])``.

    Args:
        track: 'anomaly' or 'obstacle', which decides the smallest components.
        threshold: a pixel is predicted unknown at score > threshold; None = the dataset's best F1.

    Attributes:
        frames: number of frames given.

    Raises:
        ValueError: unknown track.
    """

    def __init__(self, track: str = 'anomaly', threshold: float | None = None) -> None:
        if track not in TRACKS:
            raise ValueError(f'track: expected {" or ".join(TRACKS)}, got {track!r}')
        self.track, self.threshold = track, threshold
        self.frames = 0
        self._siou: list[float] = []
        self._ppv: list[float] = []
        self._pixels = PixelMetrics('smiyc')
        self._waiting = _Frames()

    def update(self, score: Any, label: Any) -> None:
        """
        Add a frame.

        Args:
            score: (H, W) numbers, higher = more unknown, NaN = not predicted; or a boolean mask,
                which is the prediction itself.
            label: (H, W), 0 known, 1 unknown, 255 ignore.

        Raises:
            InputError: sizes differ or a label is none of 0, 1, 255; nothing was added.
        """
        score, label = np.asarray(score), np.asarray(label)
        if score.ndim != 2:
            raise InputError(f'score: expected shape (H, W), got {score.shape}')
        if label.dtype == bool:
            label = label.view(np.uint8)
        if score.dtype == bool or self.threshold is not None:
            valid_pixels(score, label)
            prediction = score if score.dtype == bool else score > self.threshold
            siou, ppv = component_figures(prediction, label, TRACKS[self.track])
            self._siou += siou
            self._ppv += ppv
        else:
            self._pixels.update(score, label)
            self._waiting.append(score, label)
        self.frames += 1

    def merge(self, other: ComponentMetrics) -> ComponentMetrics:
        """Add what another of the same track and threshold has counted; returns self."""
        if (other.track, other.threshold) != (self.track, self.threshold):
            raise ValueError(
                f'track and threshold: cannot merge {other.track!r} at {other.threshold} into '
                f'{self.track!r} at {self.threshold}'
            )
        self._pixels.merge(other._pixels)
        self.frames += other.frames
        self._siou += other._siou
        self._ppv += other._ppv
        for score, label in other._waiting:
            self._waiting.append(score, label)
        return self

    def compute(self) -> dict[str, Any]:
        """
        Figures over all frames so far.

        Returns:
            ``sIoU`` (mean over true components), ``PPV`` (mean over predicted components, 0 where
            there is none), ``F1_star`` (mean over the 11 thresholds), the same as ``siou``,
            ``ppv``, ``f1_star``; ``f1``, ``tp``, ``fn``, ``fp`` (lists of 11, for `TAUS`),
            ``truths``, ``predictions`` (components), ``threshold``. Means over nothing are nan.
        """
        siou, ppv, threshold = list(self._siou), list(self._ppv), self.threshold
        if len(self._waiting):
            threshold = self._pixels.compute()['best_f1_threshold']
        for score, label in self._waiting:
            a, b = component_figures(score > threshold, label, TRACKS[self.track])
            siou += a
            ppv += b
        found = np.array(siou)[:, None] >= TAUS
        tp, fn = found.sum(0), (~found).sum(0)
        fp = (np.array(ppv)[:, None] < TAUS).sum(0)
        total = 2 * tp + fn + fp
        f1 = np.divide(2 * tp, total, out=np.full(len(TAUS), np.nan), where=total > 0)
        # fsum rounds once, so the order in which shards arrive cannot show.
        means = {
            'sIoU': math.fsum(siou) / len(siou) if siou else float('nan'),
            'PPV': math.fsum(ppv) / len(ppv) if ppv else 0.0,
            'F1_star': float(np.mean(f1)),
        }
        return {
            **{name.lower(): value for name, value in means.items()},
            **means,
            'f1': f1.tolist(),
            'tp': tp.tolist(),
            'fn': fn.tolist(),
            'fp': fp.tolist(),
            'truths': len(siou),
            'predictions': len(ppv),
            'threshold': threshold,
        }


def component_figures(
    prediction: NDArray[np.bool_], label: NDArray[Any], track: Track
) -> tuple[list[float], list[float]]:
    """
    Compare the 8-connected components of one frame.

    Args:
        prediction: bool (H, W), predicted unknown; ignored pixels are cleared first.
        label: (H, W), 0 known, 1 unknown, 255 ignore.

    Returns:
        sIoU of every true component, I / (|touching predictions| + |truth| - I - A) where A are
        pixels of those predictions on other true components; PPV of every predicted component, its
        share of pixels on any true one.
    """
    unknown, found = label == UNKNOWN, prediction & (label != IGNORE)
    # Only pixels of some component need to be looked at, mostly few.
    chosen = np.flatnonzero(unknown | found)
    (truths, truth), (guesses, predicted) = (
        _components(mask, chosen) for mask in (unknown, found)
    )
    pairs, shared = np.unique(truth.astype(np.int64) * guesses + predicted, return_counts=True)
    k, p = pairs // guesses, pairs % guesses
    raw = np.bincount(k, shared, truths)
    # The background is component 0 and ignored as well where it has too few pixels.
    raw[0] = label.size - raw.sum() + raw[0]
    small = raw < track.smallest_truth
    drop = np.bincount(p, shared, guesses) < track.smallest_prediction
    drop[0] = False
    kept = ~small[k]
    k, p, shared = k[kept], np.where(drop[p], 0, p)[kept], shared[kept]
    truth_size = np.bincount(k, shared, truths)
    predicted_size = np.bincount(p, shared, guesses)
    both = (k > 0) & (p > 0)
    k, p, shared = k[both], p[both], shared[both]
    on_truth = np.bincount(p, shared, guesses)
    intersection = np.bincount(k, shared, truths)
    # |touching| - A, summed over the predictions that touch truth k.
    reach = np.bincount(k, predicted_size[p] - (on_truth[p] - shared), truths)
    union = reach + truth_size - intersection
    true = np.flatnonzero(truth_size[1:]) + 1
    guessed = np.flatnonzero(predicted_size[1:]) + 1
    siou = intersection[true] / union[true]
    return siou.tolist(), (on_truth[guessed] / predicted_size[guessed]).tolist()


def _components(
    mask: NDArray[np.bool_], chosen: NDArray[np.intp]
) -> tuple[int, NDArray[np.int32]]:
    """Number of 8-connected components + 1, and the labels of chosen pixels, 0 = none."""
    if not mask.size:
        return 1, np.zeros(0, np.int32)
    count, labels = cv2.connectedComponents(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=8
    )
    return count, np.asarray(labels, np.int32).ravel()[chosen]


class _Frames:
    """Frames that wait: in memory first, beyond that in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - lives on
        self._count = 0

    def append(self, score: NDArray[Any], label: NDArray[Any]) -> None:
        self._file.seek(0, 2)
        np.save(self._file, score)
        np.save(self._file, label.astype(np.uint8))
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[np.uint8]]]:
        self._file.seek(0)
        for _ in range(self._count):
            yield np.load(self._file), np.load(self._file)

    def __getstate__(self) -> list[Any]:
        return list(self)

    def __setstate__(self, frames: list[Any]) -> None:
        self.__init__()  # type: ignore[misc]
        for score, label in frames:
            self.append(score, label)
