# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ood_perception.scores import Calibration
from ood_training.fits import fit_platt, fit_quantile


def data(seed: int = 0, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.2).astype(int)
    return rng.normal(-5, 3, n) + 4 * label, label


def test_platt_equals_logistic_regression() -> None:
    score, label = data()
    got = fit_platt(score, label)
    oracle = LogisticRegression(C=1e9, tol=1e-10).fit(score[:, None], label)
    assert got.slope == pytest.approx(float(oracle.coef_[0, 0]), rel=5e-3)
    assert got.offset == pytest.approx(float(oracle.intercept_[0]), rel=5e-3, abs=5e-3)
    p = got(torch.tensor(score))
    assert float(p.mean()) == pytest.approx(label.mean(), abs=2e-3)


def test_quantile_map_is_near_isotonic_regression() -> None:
    score, label = data()
    got = fit_quantile(score, label)
    oracle = IsotonicRegression(out_of_bounds='clip').fit(score, label)
    points = np.quantile(score, np.linspace(0.05, 0.95, 30))
    p = got(torch.tensor(points)).numpy()
    assert (np.diff(p) >= -1e-6).all()
    assert np.abs(p - oracle.predict(points)).max() <= 0.12


def test_ignored_labels_and_nan_are_left_out() -> None:
    score, label = data()
    dirty_score = np.concatenate([score, [np.nan, 1e6]])
    dirty_label = np.concatenate([label, [1, 255]])
    a, b = fit_platt(score, label), fit_platt(dirty_score, dirty_label)
    assert a.slope == pytest.approx(b.slope)


def test_round_trip_through_a_profile() -> None:
    for got in (fit_platt(*data()), fit_quantile(*data())):
        again = Calibration.from_config(got.to_config())
        x = torch.linspace(-20, 20, 101)
        assert torch.equal(again(x), got(x))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match='both kinds, got 3 known and 0 unknown'):
        fit_platt(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match='two different scores'):
        fit_quantile(np.zeros(3), np.array([0, 1, 0]))


def test_separable_data_do_not_diverge() -> None:
    got = fit_platt(np.array([-1.0, -0.5, 0.5, 1.0]), np.array([0, 0, 1, 1]))
    assert np.isfinite([got.slope, got.offset]).all()
    assert got.slope > 0
