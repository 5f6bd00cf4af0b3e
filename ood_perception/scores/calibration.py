# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration: from a score in its own unit to the probability of being unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ood_perception.profile import CalibrationConfig


class Calibration(nn.Module):
    """
    Map scores to probabilities, monotonically.

    By 'platt', sigmoid(slope * score + offset), or by 'quantile', piecewise linear through the
    probabilities 0..1 `values` at the increasing scores `knots`. `ood_training.fits` learns them.
    """

    knots: Tensor
    values: Tensor

    def __init__(
        self,
        kind: str = 'platt',
        slope: float = 1.0,
        offset: float = 0.0,
        knots: Sequence[float] = (),
        values: Sequence[float] = (),
    ) -> None:
        super().__init__()
        if kind not in ('platt', 'quantile'):
            raise ValueError(f'calibration: expected platt or quantile, got {kind!r}')
        if kind == 'quantile' and (len(knots) < 2 or len(knots) != len(values)):
            raise ValueError(f'calibration: {len(knots)} knots and {len(values)} values')
        self.kind, self.slope, self.offset = kind, slope, offset
        self.register_buffer('knots', torch.tensor(list(knots), dtype=torch.float32))
        self.register_buffer('values', torch.tensor(list(values), dtype=torch.float32))

    @classmethod
    def from_config(cls, config: CalibrationConfig) -> Calibration:
        """Build from the `calibration` entry of a profile."""
        return cls(config.kind, config.slope, config.offset, config.knots, config.values)

    def to_config(self) -> CalibrationConfig:
        """Entry of a profile that gives this map back."""
        return CalibrationConfig(
            self.kind,  # type: ignore[arg-type]
            self.slope,
            self.offset,
            self.knots.tolist(),
            self.values.tolist(),
        )

    def forward(self, score: Tensor) -> Tensor:
        """Map float (...) scores to float32 (...) probabilities 0..1; NaN becomes 0."""
        if self.kind == 'platt':
            odds = self.slope * score.float() + self.offset
            return odds.sigmoid_().nan_to_num_(nan=0.0)
        score = torch.nan_to_num(score.float(), nan=-torch.inf, neginf=-1e30, posinf=1e30)
        last = len(self.knots) - 2
        cell = (torch.searchsorted(self.knots, score.contiguous()) - 1).clamp(0, last)
        left, right = self.knots[cell], self.knots[cell + 1]
        share = ((score - left) / (right - left)).clamp(0, 1)
        return torch.lerp(self.values[cell], self.values[cell + 1], share)
