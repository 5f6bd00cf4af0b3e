# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Fusion: several scores on one scale, the log-odds of their calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.models.output import SegmentorOutput
from ood_perception.profile import CalibrationConfig
from ood_perception.scores.calibration import Calibration

EPSILON = 1e-4
"""Probabilities are kept this far from 0 and 1, so that no score can outvote all others."""


class FusionScore(nn.Module):
    """
    Weighted mean (or maximum) of calibrated log-odds.

    Args:
        parts: one mapping a score: `name`, and optionally `options`, `calibration` (as in a
            profile) and `weight`.
        rule: 'mean' or 'max'.

    Raises:
        ValueError: no parts, an unknown key or rule.

    """

    def __init__(self, parts: Sequence[Mapping[str, Any]], rule: str = 'mean') -> None:
        from ood_perception.scores import create_score

        super().__init__()
        if not parts or rule not in ('mean', 'max'):
            raise ValueError(f'score fusion: got {len(parts)} parts and rule {rule!r}')
        known = {'name', 'options', 'calibration', 'weight'}
        for part in parts:
            if 'name' not in part or set(part) - known:
                raise ValueError(f'score fusion: a part has the keys {sorted(known)}, got {part}')
        self.scores = nn.ModuleList(
            [create_score(part['name'], **part.get('options', {})) for part in parts]
        )
        self.calibrations = nn.ModuleList(
            [
                Calibration.from_config(CalibrationConfig(**part.get('calibration', {})))
                for part in parts
            ]
        )
        weights = [float(part.get('weight', 1.0)) for part in parts]
        self.weights, self.rule = [w / sum(weights) for w in weights], rule
        self.needs_features = any(getattr(s, 'needs_features', True) for s in self.scores)

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        """Score a batch: float32 (B, H, W) log-odds of being unknown."""
        odds = []
        for score, calibration in zip(self.scores, self.calibrations, strict=True):
            probability = calibration(score(output, size, streams))
            odds.append(torch.logit(probability.clamp(EPSILON, 1 - EPSILON)))
        if self.rule == 'max':
            return torch.stack(odds).amax(0)
        return sum(w * o for w, o in zip(self.weights, odds, strict=True))  # type: ignore[return-value]

    def identify(self, model: str) -> None:
        """Say which model's features come. Raises ValueError if a part was learnt on another's."""
        for score in self.scores:
            if hasattr(score, 'identify'):
                score.identify(model)  # type: ignore[operator]

    def reset(self, stream: str | None = None) -> None:
        """Forget one camera's past in every part, or all."""
        for score in self.scores:
            score.reset(stream)  # type: ignore[operator]
