# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The fitted and fused scores of `benchmarks/score_table.py` against their definitions."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist

from ood_perception.models.output import SegmentorOutput
from ood_perception.scores import create_score


@pytest.fixture
def baselines(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / 'benchmarks'))
    return importlib.import_module('baseline_scores')


@pytest.fixture
def outputs() -> list[SegmentorOutput]:
    g = torch.Generator().manual_seed(0)
    return [
        SegmentorOutput(
            features=[torch.randn(2, 10, 6, 8, generator=g)],
            logits=4 * torch.randn(2, 5, 6, 8, generator=g),
            ood=torch.randn(2, 2, 6, 8, generator=g),
        )
        for _ in range(8)
    ]


def test_sml_standardises_by_the_winning_class(baselines, outputs) -> None:
    score = baselines.StandardizedMaxLogit(outputs)
    logits = torch.cat([o.logits for o in outputs]).movedim(1, -1).reshape(-1, 5).double()
    best, winner = logits.max(1)
    for k in range(5):
        assert float(score.means[k]) == pytest.approx(float(best[winner == k].mean()), rel=1e-5)
        wanted = float(best[winner == k].std(correction=0))
        assert float(score.stds[k]) == pytest.approx(wanted, rel=1e-5)
    got = torch.cat([score(o, (6, 8)) for o in outputs])
    assert float(got.mean()) == pytest.approx(0, abs=1e-4)
    assert float(got.std()) == pytest.approx(1, abs=0.01)


def test_mahalanobis_equals_scipy(baselines, outputs) -> None:
    score = baselines.Mahalanobis(outputs, stages=(0,), shrinkage=0.0)
    tokens = torch.cat([F.normalize(o.features[0], dim=1) for o in outputs])
    flat = tokens.movedim(1, -1).reshape(-1, 10).double().numpy()
    classes = torch.cat([o.logits for o in outputs]).argmax(1).flatten().numpy()
    means = np.stack([flat[classes == k].mean(0) for k in range(5)])
    covariance = np.cov((flat - means[classes]).T, bias=True)
    want = cdist(flat, means, 'mahalanobis', VI=np.linalg.inv(covariance)).min(1) ** 2
    got = torch.cat([score(o, (6, 8)) for o in outputs]).flatten().numpy()
    np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-2)


def test_fusion_is_the_mean_of_log_odds(baselines, outputs) -> None:
    parts = [
        {'name': 'llr', 'calibration': {'slope': 0.5, 'offset': -1.0}},
        {'name': 'entropy', 'calibration': {'slope': 2.0}},
    ]
    got = baselines.Fusion(parts)(outputs[0], (24, 32))
    llr, entropy = (create_score(p['name'])(outputs[0], (24, 32)) for p in parts)
    torch.testing.assert_close(
        got, 0.5 * (0.5 * llr - 1) + 0.5 * 2 * entropy, atol=1e-3, rtol=1e-3
    )
