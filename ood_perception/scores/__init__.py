# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Scores: from a segmentor's output to how unknown each pixel is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ood_perception.scores import logits
from ood_perception.scores.calibration import Calibration
from ood_perception.scores.clusters import ClusterScore
from ood_perception.scores.features import Mahalanobis, StandardizedMaxLogit
from ood_perception.scores.fusion import FusionScore
from ood_perception.scores.likelihood_ratio import LikelihoodRatio, UemScore
from ood_perception.scores.logits import LogitScore
from ood_perception.scores.novelty import KnnScore, NoveltyScore

__all__ = ['SCORES', 'Calibration', 'create_score']


def _of_logits(function: Callable[..., Any]) -> Callable[..., nn.Module]:
    return lambda **options: LogitScore(function, **options)


SCORES: dict[str, Callable[..., nn.Module]] = {
    'llr': LikelihoodRatio,
    'uem': UemScore,
    'max_logit': _of_logits(logits.max_logit),
    'max_softmax': _of_logits(logits.max_softmax),
    'entropy': _of_logits(logits.entropy),
    'energy': _of_logits(logits.energy),
    'max_logit_minus_mean': _of_logits(logits.max_logit_minus_mean),
    'sml': StandardizedMaxLogit,
    'mahalanobis': Mahalanobis,
    'knn': KnnScore,
    'clusters': ClusterScore,
    'novelty': NoveltyScore,
    'fusion': FusionScore,
}
"""One table of scores; an entry makes a module `(output, size, streams) -> float32 (B, H, W)`."""


def create_score(name: str, **options: Any) -> Any:
    """
    Make a score by name.

    Raises:
        ValueError: unknown name; the message lists what there is.

    """
    if name not in SCORES:
        raise ValueError(f'score: expected one of {", ".join(SCORES)}, got {name!r}')
    return SCORES[name](**options)
