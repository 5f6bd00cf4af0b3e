# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The map from score to probability; test/training/test_fits.py learns it."""

import pytest
import torch

from ood_perception.scores import Calibration


@pytest.mark.parametrize('kind', ['platt', 'quantile'])
def test_every_score_has_a_probability(kind: str) -> None:
    calibration = (
        Calibration()
        if kind == 'platt'
        else Calibration('quantile', knots=[0.0, 1.0, 4.0], values=[0.0, 0.5, 1.0])
    )
    x = torch.tensor([float('-inf'), -1e30, 0.0, 0.5, 2.5, 1e30, float('inf'), float('nan')])
    p = calibration(x)
    assert ((p >= 0) & (p <= 1)).all()
    assert p[-1] == 0
    if kind == 'quantile':
        torch.testing.assert_close(p[2:5], torch.tensor([0.0, 0.25, 0.75]))


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="got 'plat'"):
        Calibration('plat')
