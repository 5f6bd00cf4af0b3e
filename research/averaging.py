# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The mean of two networks, one trained on from the other."""

from __future__ import annotations

from pathlib import Path

import torch

from ood_perception.checkpoints import read_checkpoint
from ood_perception.checkpoints.store import resolve
from ood_perception.training import cards
from ood_perception.training.checkpointing import TrainingError


def average(start: str, trained: Path, share: float, target: Path) -> Path:
    """
    Write the mean of two networks, one trained on from the other.

    What a network learns anew costs it some of what it knew; between the two lie networks that
    have both (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, alpha =
    1 - share). Running statistics are averaged too; counters are those of `trained`.

    Args:
        start: reference of the weights that training started from.
        trained: weights at its end.
        share: of the start, 0..1.
        target: file to write.

    Returns:
        `target`.

    Raises:
        TrainingError: a share that is none, or tensors that do not fit.

    """
    if not 0 <= share <= 1:
        raise TrainingError(f'keep: expected a share 0..1, got {share}')
    old, new = read_checkpoint(resolve(start)), read_checkpoint(trained)
    mean = {}
    for name, value in new.items():
        before = old.get(name)
        if before is None or before.shape != value.shape:
            raise TrainingError(f'{start}: {name} is missing or of another shape than trained')
        mean[name] = (
            torch.lerp(value, before.to(value), share) if value.dtype.is_floating_point else value
        )
    cards.write_weights(target, mean)
    return target
