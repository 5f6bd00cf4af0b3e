# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The losses of the papers beside the likelihood ratio's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.frames.resize import full
from ood_perception.labels import Label


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, ignore: int = Label.VOID
) -> Tensor:
    """Mean cross entropy over targets but `ignore`; 0 (with a gradient) where there is none."""
    target = target.long()
    summed = F.cross_entropy(full(logits), target, weight, ignore_index=ignore, reduction='sum')
    valid = target != ignore
    count = valid.sum() if weight is None else weight[target[valid]].sum()
    return summed / torch.clamp(count, min=1e-6)


def outlier_loss(ood: Tensor, target: Tensor, unknown_weight: float = 1.0) -> Tensor:
    """
    Cross entropy over the two outputs of a UEM, which G-G adds with a weight of 0.5.

    Args:
        ood: float (B, 2, H, W), UEM outputs at label size.
        target: int (B, H, W), 0 known, 1 unknown, 255 ignored.
        unknown_weight: weight of unknown pixels in the mean.

    """
    weights = torch.tensor([1.0, unknown_weight], device=ood.device, dtype=full(ood).dtype)
    return cross_entropy(ood, target, weights)
