# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Numbers that pick weights while training: AP, FPR95 and AUROC of the unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ood_perception.evaluation.pixel_metrics import PixelMetrics
from ood_perception.labels import Truth, truth_of
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.logits import LikelihoodRatio, UemScore
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.data import evenly
from ood_perception.training.parts import Parts, normalise

Array = np.ndarray


class Validation:
    """
    Measures the likelihood ratio on fixed samples; use as a `Validate` of a stage.

    Args:
        dataset: indexed by (epoch, index), with unknown pixels (label 254); epoch 0 is used, so
            pasted objects are the same every time.
        limit: samples used at most, evenly chosen.
        stride: every n-th pixel of every n-th row is used.
        exact: as of `scores.LikelihoodRatio`.
    """

    def __init__(
        self, dataset: Dataset, limit: int = 200, stride: int = 2, exact: bool = True
    ) -> None:
        self.dataset, self.stride, self.exact = dataset, stride, exact
        self.indices = evenly(len(dataset), limit)  # type: ignore[arg-type]

    def __call__(self, parts: Parts) -> dict[str, float]:
        """Return AP, FPR95 and AUROC, all between 0 and 1."""
        return pixel_numbers(*self.scores(parts))

    def scores(self, parts: Parts) -> tuple[list[Array], list[Array]]:
        """
        Return likelihood ratios float32 (h, w) and their truth uint8 (0, 1, 255) of all samples.

        Raises:
            TrainingError: no sample has unknown pixels, or none has known ones.
        """
        assert parts.ood is not None
        ratio = UemScore() if parts.logits is None else LikelihoodRatio(self.exact)
        scores, truths = [], []
        kept = slice(self.stride // 2, None, self.stride)
        for index in self.indices:
            sample = self.dataset[(0, int(index))]
            height, width = sample['label'].shape
            maps = sample_features(parts, sample)
            output = SegmentorOutput(ood=parts.ood(maps).float())
            if parts.logits is not None:
                output.logits = parts.logits(maps).float()
            scores.append(ratio(output, (height, width))[0, kept, kept].cpu().numpy())
            truths.append(truth_of(sample['label'].numpy()[kept, kept]).astype(np.uint8))
        found = {int(value) for truth in truths for value in np.unique(truth)}
        if not {Truth.KNOWN, Truth.UNKNOWN} <= found:
            raise TrainingError(
                'the validation set needs known and unknown pixels (label 254, or pasted objects)'
            )
        return scores, truths


def pixel_numbers(scores: Sequence[Array], truths: Sequence[Array]) -> dict[str, float]:
    """AP, FPR95 and AUROC over all pixels whose truth is 0 or 1."""
    metrics = PixelMetrics()
    for score, truth in zip(scores, truths, strict=True):
        metrics.update(score, truth)
    values = metrics.compute()
    return {name: float(values[name]) for name in ('ap', 'fpr95', 'auroc')}


def sample_features(parts: Parts, sample: dict[str, Any]) -> list[torch.Tensor]:
    """Feature maps of the frozen backbone for the image of one sample."""
    device = next(parts.model.parameters()).device
    return parts.features(normalise(sample['image'][None].to(device), parts.spec))
