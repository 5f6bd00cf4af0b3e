# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration: from a score in its own unit to the probability of being unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ood_perception.profile import CalibrationConfig

Array = npt.NDArray[Any]


class Calibration(nn.Module):
    """Map scores to probabilities monotonically, by sigmoid(slope * score + offset)."""

    def __init__(self, slope: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.slope, self.offset = slope, offset

    @classmethod
    def from_config(cls, config: CalibrationConfig) -> Calibration:
        """Build from the `calibration` entry of a profile."""
        return cls(config.slope, config.offset)

    def to_config(self) -> CalibrationConfig:
        """Entry of a profile that gives this map back."""
        return CalibrationConfig(slope=self.slope, offset=self.offset)

    def forward(self, score: Tensor) -> Tensor:
        """Map float (...) scores to float32 (...) probabilities 0..1; NaN becomes 0."""
        score = torch.nan_to_num(score.float(), nan=-torch.inf, neginf=-1e30, posinf=1e30)
        return torch.sigmoid(self.slope * score + self.offset)

    @classmethod
    def fit_platt(cls, score: Array, label: Array, iterations: int = 50) -> Calibration:
        """
        Fit slope and offset by maximum likelihood (Platt 1999, with his smoothed targets).

        The score is float (...), any unit, the label integer (...), 0 known, 1 unknown, everything
        else is left out. ValueError where one of the two classes has no finite score.
        """
        score, label = np.asarray(score, np.float64).ravel(), np.asarray(label).ravel()
        keep = ((label == 0) | (label == 1)) & np.isfinite(score)
        score, label = score[keep], label[keep].astype(np.int64)
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
        return cls(slope, float(w[1] - slope * centre))


def _log_loss(logit: Array, target: Array) -> float:
    return float(np.sum(np.logaddexp(0, logit) - target * logit))
