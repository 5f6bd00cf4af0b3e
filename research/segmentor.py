# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Stage 1: a decoder and head for the known classes on a frozen backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import typer
from torch import Tensor
from torch.utils.data import Dataset

from ood_perception.frames.resize import full, upsample
from ood_perception.labels import Label
from ood_perception.models.compact import channels_last
from ood_training.checkpointing import TrainingError
from ood_training.data import Array, evenly
from ood_training.parts import SPLITS, Maps, Parts
from ood_training.uem import StageTask, Validate, sample_features
from research.commands import (
    Backbone,
    Cache,
    Data,
    LabelMapOption,
    Model,
    Out,
    PresetOption,
    Set,
    Val,
    Weights,
    errors_in_one_line,
    stage_job,
)
from research.gmm import GmmSettings, GmmTraining, contrast_loss
from research.losses import cross_entropy


def _encoder_decoder(model: Any) -> Parts:
    def logits(maps: Maps) -> Tensor:
        out = model.decode_head(maps)
        return out if model.used_classes is None else out[:, : model.used_classes]

    net = model.backbone
    return Parts(model, model.spec, net, logits, None, net, [model.decode_head])


def _dinov2(model: Any) -> Parts:
    def features(images: Tensor) -> list[Tensor]:
        return model.patch_maps(images, model.out_indices)

    return Parts(model, model.spec, features, None, None, model)


SPLITS |= {'EncoderDecoder': _encoder_decoder, 'DINOv2': _dinov2}


class FrozenMaps(StageTask):
    """
    A stage whose samples may carry the frozen maps, computed before or read from the cache.

    Attributes:
        label_stride: the loss sees every n-th row and column of the label.

    """

    label_stride = 1

    def label(self, batch: dict[str, Any]) -> Tensor:
        """Label int64 (B, H, W) that the loss sees."""
        n = self.label_stride
        return batch['label'][:, n // 2 :: n, n // 2 :: n].long()

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of samples; maps are laid out as CPUs convolve them fastest."""
        batch = super().collate(samples)
        if 'features' in batch:
            batch['features'] = channels_last(batch['features'])
        return batch

    def features(self, batch: dict[str, Any]) -> list[Tensor]:
        """Frozen maps of a batch: those it carries, or computed now."""
        if 'features' in batch:
            return [maps.float() for maps in batch['features']]
        return super().features(batch)


CLASS_HEAD = 'segmentor.segmentation_head'
"""Module of a UEM's model whose input is the pixel embedding of the classes."""


class SegmentorTask(FrozenMaps):
    """
    Train decoder and class head: cross entropy, plus the contrast term of a GMM head.

    Args:
        parts: of the model.
        validate: see :class:`StageTask`.
        gmm: how a GMM head learns.
        label_stride: see :class:`FrozenMaps`.

    """

    def __init__(
        self,
        parts: Parts,
        validate: Validate | None = None,
        gmm: GmmSettings | None = None,
        label_stride: int = 1,
    ) -> None:
        if parts.logits is None:
            raise TrainingError(
                f'{type(parts.model).__name__} has no class head; train a uem_* model for DINOv2'
            )
        super().__init__(parts, parts.decoder, validate)
        self.label_stride = label_stride
        self.gmm = GmmTraining.of(parts.model, CLASS_HEAD, gmm or GmmSettings())

    def weigh(self, batch: dict[str, Any]) -> Tensor:
        """Weight of the batch: its pixels with a class."""
        return (self.label(batch) < 254).sum().float()

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return 'loss', a mean over the pixels with a class."""
        assert self.parts.logits is not None
        maps, label = self.features(batch), self.label(batch)
        if self.gmm is None:
            return {'loss': segmentation_loss(self.parts.logits(maps), label)}
        logits, contrast = self.gmm.run(self.parts.logits, maps, label)
        return {'loss': segmentation_loss(logits, label) + contrast_loss(contrast)}


def known_target(label: Tensor) -> Tensor:
    """Labels int64 for the class loss: unknown pixels are ignored as void is."""
    return label.long().masked_fill(label == Label.UNKNOWN, Label.VOID)


def segmentation_loss(logits: Tensor, label: Tensor, class_weight: Tensor | None = None) -> Tensor:
    """
    Stage-1 loss: cross entropy of the upsampled logits.

    Args:
        logits: float (B, K, h, w) at head resolution.
        label: int (B, H, W), 254 and 255 are ignored.
        class_weight: float (K,), weight of each class (None: all 1, as in the papers).

    """
    up = upsample(full(logits), (int(label.shape[-2]), int(label.shape[-1])))
    return cross_entropy(up, known_target(label), class_weight)


class ClassValidation:
    """
    Measures mIoU and pixel accuracy of the known classes; use as a `Validate` of a stage.

    Args:
        dataset: indexed by (epoch, index); epoch 0 is used.
        limit: samples used at most, evenly chosen.

    """

    def __init__(self, dataset: Dataset, limit: int = 200) -> None:
        self.dataset, self.indices = dataset, evenly(len(dataset), limit)  # type: ignore[arg-type]

    def __call__(self, parts: Parts) -> dict[str, float]:
        """Return the numbers, all between 0 and 1."""
        assert parts.logits is not None
        confusion = np.zeros((0, 0), np.int64)
        for index in self.indices:
            sample = self.dataset[(0, int(index))]
            label = sample['label'].numpy()
            logits = parts.logits(sample_features(parts, sample))
            classes = logits.shape[1]
            if not confusion.size:
                confusion = np.zeros((classes, classes), np.int64)
            predicted = upsample(logits.float(), label.shape).argmax(1)[0].cpu().numpy()
            valid = label < classes
            joint = label[valid] * classes + predicted[valid]
            confusion += np.bincount(joint, minlength=classes**2).reshape(classes, classes)
        return class_numbers(confusion)


def class_numbers(confusion: Array) -> dict[str, float]:
    """MIoU over the classes that occur, and pixel accuracy, of (label, prediction) counts."""
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    present = confusion.sum(1) > 0
    if not present.any():
        raise TrainingError('the validation set has no pixel of any class')
    iou = hit[present] / np.maximum(union[present], 1)
    return {'miou': float(iou.mean()), 'accuracy': float(hit.sum() / confusion.sum())}


def command(
    data: Data,
    out: Out,
    preset: PresetOption = 'uem_gd',
    val: Val = '',
    label_map: LabelMapOption = '',
    model: Model = '',
    backbone: Backbone = '',
    weights: Weights = '',
    cache: Cache = 0,
    set_: Set = [],  # noqa: B006
) -> None:
    """Stage 1: train decoder and head for the known classes on a frozen backbone."""
    from ood_training import finishing
    from research.stages import run_stage

    with errors_in_one_line():
        job = stage_job(preset, 'segmentor', data, val, label_map, '', out, model, set_, cache)
        job.weights, job.backbone = weights, backbone
        path, numbers = run_stage(job, 'segmentor')
        typer.echo(f'{path}\n{finishing.finish(job, path, numbers, score="max_logit")}')


if __name__ == '__main__':
    typer.run(command)
