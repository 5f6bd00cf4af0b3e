# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Scores: from a segmentor's output to how unknown each pixel is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ood_perception.scores import logits
from ood_perception.scores.base import ScoreModule
from ood_perception.scores.calibration import Calibration
from ood_perception.scores.clusters import ClusterScore
from ood_perception.scores.logits import LikelihoodRatio, LogitScore, log_likelihood_ratio
from ood_perception.scores.novelty import DARK, NoveltyScore, SiteScore, learns, paused

__all__ = [
    'DARK',
    'SCORES',
    'Calibration',
    'ScoreModule',
    'create_score',
    'learns',
    'log_likelihood_ratio',
    'paused',
]

SCORES: dict[str, Callable[..., ScoreModule]] = {
    'llr': LikelihoodRatio,
    'uem': logits.UemScore,
    'max_logit': partial(LogitScore, logits.max_logit),
    'max_softmax': partial(LogitScore, logits.max_softmax),
    'entropy': partial(LogitScore, logits.entropy),
    'energy': partial(LogitScore, logits.energy),
    'max_logit_minus_mean': partial(LogitScore, logits.max_logit_minus_mean),
    'knn': partial(NoveltyScore, neighbours=5),  # distance to tokens of known data
    'clusters': ClusterScore,
    'novelty': NoveltyScore,
    'site': SiteScore,
}
"""Name -> what builds the score; a new one derives from `ScoreModule`."""


def create_score(name: str, **options: Any) -> ScoreModule:
    """
    Build an entry of `SCORES` with its keyword arguments.

    ValueError: no such entry, or an option out of its range. TypeError: an option that it has not.
    """
    if name not in SCORES:
        raise ValueError(f'score: expected one of {", ".join(SCORES)}, got {name!r}')
    return SCORES[name](**options)
