# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Scores: from a segmentor's output to how unknown each pixel is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ood_perception.scores import logits
from ood_perception.scores.base import LearningScore, Score, ScoreModule, learns
from ood_perception.scores.calibration import Calibration
from ood_perception.scores.clusters import ClusterScore
from ood_perception.scores.logits import (
    LikelihoodRatio,
    LogitScore,
    UemScore,
    log_likelihood_ratio,
)
from ood_perception.scores.novelty import KnnScore, NoveltyScore
from ood_perception.scores.site import SiteScore

__all__ = [
    'SCORES',
    'Calibration',
    'LearningScore',
    'Score',
    'ScoreModule',
    'create_score',
    'learns',
    'log_likelihood_ratio',
]


def _of_logits(function: Callable[..., Any]) -> Callable[..., Score]:
    return lambda **options: LogitScore(function, **options)


SCORES: dict[str, Callable[..., Score]] = {
    'llr': LikelihoodRatio,
    'uem': UemScore,
    'max_logit': _of_logits(logits.max_logit),
    'max_softmax': _of_logits(logits.max_softmax),
    'entropy': _of_logits(logits.entropy),
    'energy': _of_logits(logits.energy),
    'max_logit_minus_mean': _of_logits(logits.max_logit_minus_mean),
    'knn': KnnScore,
    'clusters': ClusterScore,
    'novelty': NoveltyScore,
    'site': SiteScore,
}
"""Name -> what builds the score, see `Score`; derive a new one from `ScoreModule`."""


def create_score(name: str, **options: Any) -> Score:
    """
    Build an entry of `SCORES` with its keyword arguments.

    ValueError: no such entry, or an option out of its range. TypeError: an option that it has not.
    """
    if name not in SCORES:
        raise ValueError(f'score: expected one of {", ".join(SCORES)}, got {name!r}')
    return SCORES[name](**options)
