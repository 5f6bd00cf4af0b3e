# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Numbers that pick weights while training: mIoU of the classes, AP and FPR95 of the unknown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ood_perception.scores.base import upsample
from ood_perception.scores.likelihood_ratio import log_likelihood_ratio
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.parts import Parts, normalise

Array = np.ndarray


class Validation:
    """
    Measures a model on fixed samples; use as a `Validate` of a stage.

    Args:
        dataset: indexed by (epoch, index); epoch 0 is used, so pasted objects are the same always.
        stage: 'segmentor' measures mIoU and pixel accuracy; 'uem' AP and FPR95 of the likelihood
            ratio, which needs unknown pixels (label 254).
        most: samples used, evenly chosen.
        stride: every n-th pixel of every n-th row is used for 'uem'.

    """

    def __init__(self, dataset: Dataset, stage: str, most: int = 200, stride: int = 2) -> None:
        length = len(dataset)  # type: ignore[arg-type]
        if not length:
            raise TrainingError('the validation set is empty')
        self.dataset, self.stage, self.stride = dataset, stage, stride
        self.indices = np.unique(np.linspace(0, length - 1, min(most, length)).astype(int))

    def __call__(self, parts: Parts) -> dict[str, float]:
        """Return the numbers, all between 0 and 1."""
        if self.stage == 'segmentor':
            return self._classes(parts)
        scores, labels = self.scores(parts)
        return pixel_numbers(scores, labels)

    def _classes(self, parts: Parts) -> dict[str, float]:
        assert parts.logits is not None
        confusion = np.zeros((0, 0), np.int64)
        for index in self.indices:
            sample = self.dataset[(0, int(index))]
            label = sample['label'].numpy()
            logits = parts.logits(_features(parts, sample))
            classes = logits.shape[1]
            if not confusion.size:
                confusion = np.zeros((classes, classes), np.int64)
            predicted = upsample(logits.float(), label.shape).argmax(1)[0].cpu().numpy()
            valid = label < classes
            joint = label[valid] * classes + predicted[valid]
            confusion += np.bincount(joint, minlength=classes**2).reshape(classes, classes)
        return class_numbers(confusion)

    def scores(self, parts: Parts) -> tuple[list[Array], list[Array]]:
        """
        Likelihood ratios float32 (h, w) and labels (0, 1, 255) of all samples.

        Raises:
            TrainingError: no sample has unknown pixels, or none has known ones.

        """
        assert parts.ood is not None
        scores, labels = [], []
        n = self.stride
        for index in self.indices:
            sample = self.dataset[(0, int(index))]
            label = sample['label'].numpy()[n // 2 :: n, n // 2 :: n]
            maps = _features(parts, sample)
            size = tuple(sample['label'].shape)
            logits = None if parts.logits is None else parts.logits(maps)
            llr = log_likelihood_ratio(logits, parts.ood(maps), size)
            scores.append(llr[0, n // 2 :: n, n // 2 :: n].cpu().numpy())
            labels.append(np.where(label == 255, 255, label == 254).astype(np.uint8))
        found = {int(v) for label in labels for v in np.unique(label)}
        if not {0, 1} <= found:
            raise TrainingError(
                'the validation set needs known and unknown pixels (label 254, or pasted objects)'
            )
        return scores, labels


def pixel_numbers(scores: Sequence[Array], labels: Sequence[Array]) -> dict[str, float]:
    """AP, FPR95 and AUROC over all pixels with label 0 or 1."""
    from ood_perception.evaluation.pixel_metrics import PixelMetrics

    metrics: Any = PixelMetrics()
    for score, label in zip(scores, labels, strict=True):
        metrics.update(score, label)
    values: Any = metrics.compute()
    values = values if isinstance(values, dict) else vars(values)
    return {name: float(values[name]) for name in ('ap', 'fpr95', 'auroc')}


def class_numbers(confusion: Array) -> dict[str, float]:
    """MIoU over the classes that occur, and pixel accuracy, of (label, prediction) counts."""
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    present = confusion.sum(1) > 0
    if not present.any():
        raise TrainingError('the validation set has no pixel of any class')
    iou = hit[present] / np.maximum(union[present], 1)
    return {'miou': float(iou.mean()), 'accuracy': float(hit.sum() / confusion.sum())}


def _features(parts: Parts, sample: dict[str, Any]) -> list[torch.Tensor]:
    device = next(parts.model.parameters()).device
    return parts.features(normalise(sample['image'][None].to(device), parts.spec))
