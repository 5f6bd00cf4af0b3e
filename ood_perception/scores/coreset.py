# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Tokens and a bank of them: distances, thinning, a projection that keeps distances."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def moments_of(values: Tensor) -> Tensor:
    """Count, sum and sum of squares: float64 (3,) on the host."""
    sums = [len(values), float(values.sum()), float(values.double().square().sum())]
    return torch.tensor(sums, dtype=torch.float64)


def mean_and_std(moments: Tensor) -> tuple[float, float]:
    """Mean and standard deviation from count, sum and sum of squares."""
    count, total, squares = moments.tolist()
    mean = total / max(count, 1)
    return mean, max(squares / max(count, 1) - mean**2, 1e-8) ** 0.5


def projection(width: int, to: int) -> Tensor:
    """Orthogonal random matrix float32 (width, to), the same for all robots; keeps lengths."""
    random = torch.randn(width, to, generator=torch.Generator().manual_seed(width))
    basis: Tensor = torch.linalg.qr(random)[0]
    return basis * math.sqrt(width / to)


def shrunk(maps: Tensor, grid: Tensor) -> Tensor:
    """Mean of (B, H, W) maps over each token of a grid (B, D, h, w): (B * h * w,)."""
    h, w = grid.shape[2:]
    return F.adaptive_avg_pool2d(maps[:, None], (h, w)).flatten()


def squared_distances(tokens: Tensor, bank: Tensor) -> Tensor:
    """Squared distances (N, M) of (N, D) tokens to a bank (M, D); rounding may make some < 0."""
    squared = torch.addmm(bank.square().sum(1)[None], tokens, bank.T, alpha=-2)
    return squared.add_(tokens.square().sum(1, keepdim=True))


def thin(bank: Tensor, radius: float) -> list[int]:
    """Rows to keep, oldest first, that are farther than `radius` from all kept before."""
    distance = torch.cdist(bank, bank)
    near = (distance <= radius).cpu().numpy()
    free = np.ones(len(bank), dtype=bool)
    kept = []
    for i in range(len(bank)):
        if free[i]:
            kept.append(i)
            free &= ~near[i]
    return kept
