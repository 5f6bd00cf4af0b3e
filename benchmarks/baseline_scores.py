# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Scores that the table of scores compares with: they are fitted on known data, or fuse others.

SML: Jung et al., "Standardized Max Logits", ICCV 2021. Mahalanobis: Lee et al., NeurIPS 2018,
class means with one shared covariance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ood_perception.frames.resize import upsample
from ood_perception.models.output import SegmentorOutput
from ood_perception.profile import CalibrationConfig
from ood_perception.scores import Calibration, ScoreModule, create_score
from ood_perception.scores.logits import need
from ood_perception.scores.tokens import as_tokens, feature_grid

EPSILON = 1e-4
"""Probabilities are kept this far from 0 and 1, so that no score can outvote all others."""


class StandardizedMaxLogit(ScoreModule):
    """
    Minus the maximum logit, standardised by the statistics of the class that it belongs to.

    Args:
        outputs: of known data, with logits; one pass. A class that never wins gets the statistics
            of all classes together.

    Attributes:
        means: float32 (K,), mean of the maximum logit where it is class k.
        stds: float32 (K,), its standard deviation.

    """

    def __init__(self, outputs: Iterable[SegmentorOutput]) -> None:
        super().__init__()
        moments = torch.zeros(3, 0, dtype=torch.float64)
        for output in outputs:
            logits = need(output.logits, 'sml', 'class logits').double()
            best, classes = logits.max(1)
            if not moments.numel():
                moments = torch.zeros(3, logits.shape[1], dtype=torch.float64)
            for row, value in enumerate((torch.ones_like(best), best, best.square())):
                moments[row].scatter_add_(0, classes.flatten(), value.flatten())
        moments = torch.where(moments[0] > 1, moments, moments.sum(1, keepdim=True))
        means = moments[1] / moments[0]
        variance = (moments[2] / moments[0] - means.square()).clamp_min(1e-12)
        self.means, self.stds = means.float(), variance.sqrt().float()

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        best, classes = upsample(need(output.logits, 'sml', 'class logits'), size).max(1)
        return (self.means[classes] - best) / self.stds[classes]


class Mahalanobis(ScoreModule):
    """
    Smallest squared Mahalanobis distance of a pixel's features to the mean of a predicted class.

    Args:
        outputs: of known data, with features and logits; one pass.
        stages: feature maps, the first gives the grid.
        shrinkage: share of the mean variance that is added to the covariance's diagonal.
        max_tokens: bound of the grid.

    """

    needs_features = True

    def __init__(
        self,
        outputs: Iterable[SegmentorOutput],
        stages: Sequence[int] = (-2,),
        shrinkage: float = 1e-3,
        max_tokens: int = 4096,
    ) -> None:
        super().__init__()
        self.stages, self.max_tokens = list(stages), max_tokens
        tokens, classes = [], []
        for output in outputs:
            grid = self._grid(output)
            logits = need(output.logits, 'mahalanobis', 'class logits')
            tokens.append(as_tokens(grid).double().flatten(0, 1))
            classes.append(upsample(logits, grid.shape[2:]).argmax(1).flatten())
        x, owner = torch.cat(tokens), torch.cat(classes)
        kinds = owner.unique()
        means = torch.stack([x[owner == k].mean(0) for k in kinds])
        centred = x - means[torch.searchsorted(kinds, owner)]
        covariance = centred.T @ centred / len(x)
        diagonal = covariance.diagonal().mean().expand(len(covariance)).diag()
        self.means = means.float()
        self.precision = torch.linalg.inv(covariance + shrinkage * diagonal).float()

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        grid = self._grid(output)
        tokens = as_tokens(grid)
        whitened = tokens @ self.precision
        distance = (whitened * tokens).sum(-1, keepdim=True) - 2 * whitened @ self.means.T
        distance = distance + ((self.means @ self.precision) * self.means).sum(-1)
        nearest = distance.amin(-1).clamp_min(0).view(len(grid), 1, *grid.shape[2:])
        return upsample(nearest, size)[:, 0]

    def _grid(self, output: SegmentorOutput) -> Tensor:
        return feature_grid(output, self.stages, self.max_tokens, 'mahalanobis')


class Fusion(ScoreModule):
    """
    Mean of the log-odds of several scores' calibrated probabilities.

    Args:
        parts: for each score its `name`, `options` and `calibration`, as in a profile.

    """

    needs_features = True

    def __init__(self, parts: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.scores = [create_score(part['name'], **part.get('options', {})) for part in parts]
        configs = [CalibrationConfig(**part.get('calibration', {})) for part in parts]
        self.calibrations = [Calibration.from_config(config) for config in configs]

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        odds = []
        for score, calibration in zip(self.scores, self.calibrations, strict=True):
            probability = calibration(score(output, size, streams))
            odds.append(torch.logit(probability.clamp(EPSILON, 1 - EPSILON)))
        return torch.stack(odds).mean(0)

    def reset(self, stream: str | None = None) -> None:
        for score in self.scores:
            score.reset(stream)
