# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Fits of a `Calibration`: Platt's sigmoid, and a monotone map through quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ood_perception.scores.calibration import Calibration

Array = npt.NDArray[Any]


def fit_platt(score: Array, label: Array, iterations: int = 50) -> Calibration:
    """
    Fit slope and offset by maximum likelihood (Platt 1999, with his smoothed targets).

    The score is float (...), any unit, the label integer (...), 0 known, 1 unknown, everything
    else is left out. ValueError where one of the two classes has no finite score.
    """
    score, label = _finite(score, label)
    positives, negatives = int(label.sum()), int((1 - label).sum())
    if not positives or not negatives:
        raise ValueError(
            f'calibration needs both kinds, got {negatives} known and {positives} unknown'
        )
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    target = np.where(label > 0, high, low)
    centre, scale = score.mean(), score.std() + 1e-12
    x = np.stack([(score - centre) / scale, np.ones_like(score)], 1)
    w = np.zeros(2)
    loss = _log_loss(x @ w, target)
    for _ in range(iterations):
        p = 1 / (1 + np.exp(-(x @ w)))
        gradient = x.T @ (p - target)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while (new := _log_loss(x @ (w - step), target)) > loss and np.abs(step).max() > 1e-9:
            step = step / 2
        w, change, loss = w - step, loss - new, new
        if abs(change) < 1e-12 * max(1.0, abs(loss)):
            break
    slope = float(w[0] / scale)
    return Calibration('platt', slope, float(w[1] - slope * centre))


def fit_quantile(score: Array, label: Array, knots: int = 33) -> Calibration:
    """
    Fit a monotone piecewise linear map through quantiles of the score (isotonic regression).

    Score and label are as of `fit_platt`; there are at most so many knots. Fewer than two
    different finite scores are a ValueError.
    """
    score, label = _finite(score, label)
    edges = np.zeros(0)
    if len(score):
        edges = np.unique(np.asarray(np.quantile(score, np.linspace(0, 1, knots + 1))))
    if len(edges) < 2:
        raise ValueError('calibration needs at least two different scores')
    cell = np.clip(np.searchsorted(edges, score, side='right') - 1, 0, len(edges) - 2)
    weight = np.bincount(cell, minlength=len(edges) - 1).astype(float)
    total = np.bincount(cell, label.astype(float), minlength=len(edges) - 1)
    filled = weight > 0
    centres = ((edges[:-1] + edges[1:]) / 2)[filled]
    values = _pool_adjacent_violators(total[filled] / weight[filled], weight[filled])
    if len(centres) == 1:
        centres, values = np.array([edges[0], edges[-1]]), np.repeat(values, 2)
    return Calibration('quantile', knots=centres.tolist(), values=values.tolist())


def _finite(score: Array, label: Array) -> tuple[Array, Array]:
    score, label = np.asarray(score, np.float64).ravel(), np.asarray(label).ravel()
    keep = ((label == 0) | (label == 1)) & np.isfinite(score)
    return score[keep], label[keep].astype(np.int64)


def _log_loss(logit: Array, target: Array) -> float:
    return float(np.sum(np.logaddexp(0, logit) - target * logit))


def _pool_adjacent_violators(mean: Array, weight: Array) -> Array:
    """Closest non-decreasing sequence in the weighted least-squares sense."""
    blocks: list[list[float]] = []
    for m, w in zip(mean, weight, strict=True):
        blocks.append([m, w, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            b, a = blocks.pop(), blocks.pop()
            total = a[1] + b[1]
            blocks.append([(a[0] * a[1] + b[0] * b[1]) / total, total, a[2] + b[2]])
    return np.concatenate([np.full(int(n), m) for m, _, n in blocks])
