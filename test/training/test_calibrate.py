# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Fitting a calibration: right where the score tells unknown from known, refused elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from ood_training.calibrate import fit
from ood_training.checkpointing import TrainingError


def scores_and_labels(lift: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two frames of noise, `lift` higher where the label is 1."""
    rng = np.random.default_rng(0)
    labels = [(rng.random((40, 50)) < 0.3).astype(np.uint8) for _ in range(2)]
    return [rng.normal(0, 1, (40, 50)) + lift * label for label in labels], labels


def test_a_rising_score_gives_a_rising_map():
    config, numbers = fit(*scores_and_labels(3.0), 'platt')
    assert config.slope > 1
    assert numbers['ece'] < 0.05
    assert numbers['pixels'] == 4000


@pytest.mark.parametrize('lift', [-3.0, -0.5])
def test_a_score_that_falls_on_unknown_pixels_is_refused(lift: float):
    with pytest.raises(TrainingError, match=r'not above that of known ones .*--label-map'):
        fit(*scores_and_labels(lift), 'platt')


def test_an_unknown_kind_is_named():
    with pytest.raises(TrainingError, match="'platt' or 'quantile', got 'isotonic'"):
        fit(*scores_and_labels(1.0), 'isotonic')
