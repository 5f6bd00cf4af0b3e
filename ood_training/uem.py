# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training of a UEM on top of a frozen segmentor: its loss, the task, the numbers that pick weights.

The loss is that of the official code: "Likelihood Ratio-Based Approach to Segmenting Unknown
Objects", equations 8 to 11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from ood_evaluation.pixel_metrics import PixelMetrics
from ood_perception.frames.resize import full
from ood_perception.labels import Truth, truth_of
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.logits import LikelihoodRatio
from ood_training.checkpointing import TrainingError
from ood_training.data import evenly
from ood_training.parts import Parts, normalise
from ood_training.presets import Stage
from ood_training.settings import Task

Validate = Callable[[Parts], dict[str, float]]


def object_weights(target: Tensor, area: float, limit: float = 4.0) -> Tensor:
    """
    Weights by which small unknown objects count like larger ones: sqrt(area / own area).

    A pixel's share in a mean over pixels lets a network give up small things: an object of 12 x 12
    pixels is a thousandth of a frame. An object is an 8-connected component of unknown pixels.

    Args:
        target: int (B, H, W), 1 = unknown, see `labels.truth_of`.
        area: cells; objects of this area and larger ones have weight 1.

    Returns:
        float32 (B, H, W), 1..limit, 1 where nothing is unknown.
    """
    weights = np.ones(tuple(target.shape), np.float32)
    for row, mask in zip(weights, (target == Truth.UNKNOWN).cpu().numpy(), strict=True):
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        if count > 1:
            own = np.sqrt(area / stats[:, cv2.CC_STAT_AREA]).clip(1, limit)
            own[0] = 1
            row[:] = own[parts]
    return torch.from_numpy(weights).to(target.device)


def llr_loss(
    llr: Tensor,
    target: Tensor,
    *,
    unknown_weight: float = 1.0,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """
    Likelihood-ratio loss BCE(LLR), a mean over valid pixels.

    Args:
        llr: float (B, H, W), log-likelihood ratio at label size.
        target: int (B, H, W), 0 known, 1 unknown, 255 ignored.
        unknown_weight: weight of unknown pixels (1 in the paper).
        pixel_weight: float (B, H, W), factors on the pixels, see `object_weights`; None = 1
            (the paper).

    Returns:
        float32 (), 0 with a gradient where no pixel is valid.
    """
    valid = target != Truth.IGNORE
    llr = full(llr)
    wanted = (target == Truth.UNKNOWN).to(llr.dtype)
    weight = valid * (1.0 + (unknown_weight - 1.0) * wanted)
    if pixel_weight is not None:
        weight = weight * pixel_weight
    pixel = F.binary_cross_entropy_with_logits(llr, wanted, reduction='none')
    return (pixel * weight).sum() / weight.sum().clamp(min=1e-6)


class StageTask(Task):
    """
    What stages share: the model's parts and frozen features.

    Args:
        parts: of the model.
        trained: modules that the stage trains; all else is frozen and in evaluation mode.
        validate: measures the parts in evaluation mode, None = no validation.
    """

    def __init__(
        self, parts: Parts, trained: list[nn.Module], validate: Validate | None = None
    ) -> None:
        super().__init__()
        self.parts, self.model = parts, parts.model
        self._trained, self._validate = list(trained), validate
        self.model.requires_grad_(False).eval()
        for module in trained:
            for name, parameter in module.named_parameters():
                # Statistics of a GMM head are no matter of gradients.
                parameter.requires_grad_(name.rsplit('.', 1)[-1] not in ('means', 'diagonal'))
            # Their gradient is 0 but for rounding, of which Adam would make steps of full length.
            for part in module.modules():
                for name in getattr(part, 'cancelled', ()):
                    part.get_parameter(name).requires_grad_(False)
        self._own = tuple(f'model.{prefix}' for prefix in parts.prefixes(self._trained))

    def trained_state(self) -> dict[str, Tensor]:
        """State of the trained modules, and what training keeps besides the model."""
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith('model.') or name.startswith(self._own)
        }

    def train(self, mode: bool = True) -> StageTask:
        """Set the mode of the trained modules; frozen ones stay in evaluation mode."""
        super().train(mode)
        self.model.eval()
        for module in self._trained:
            module.train(mode)
        return self

    @torch.no_grad()
    def features(self, batch: dict[str, Any]) -> list[Tensor]:
        """Frozen maps of a batch."""
        return [
            m.detach() for m in self.parts.features(normalise(batch['image'], self.parts.spec))
        ]

    def label(self, batch: dict[str, Any]) -> Tensor:
        """Label int64 (B, H, W) that the loss sees."""
        return batch['label'].long()

    def weigh(self, batch: dict[str, Any]) -> Tensor:
        """Weight of the batch: its pixels that are not void."""
        return (self.label(batch) != 255).sum().float()

    def validate(self) -> dict[str, float]:
        """Numbers on the validation set, in evaluation mode."""
        if self._validate is None:
            return {}
        self.eval()
        with torch.inference_mode():
            return self._validate(self.parts)


class UemTask(StageTask):
    """
    Train a UEM; the segmentor is frozen, in evaluation mode.

    Args:
        parts, validate: see :class:`StageTask`.
        stage: weights of unknown pixels and of small objects, and which likelihood ratio.
    """

    def __init__(self, parts: Parts, stage: Stage, validate: Validate | None = None) -> None:
        if parts.ood is None or parts.logits is None:
            raise TrainingError(f'{type(parts.model).__name__} has no UEM')
        super().__init__(parts, parts.uem, validate)
        self.unknown_weight, self.object_area = stage.unknown_weight, stage.object_area
        self.score = LikelihoodRatio(stage.exact)

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of samples; its targets take time, which the loading process has."""
        return self._with_targets(super().collate(samples))

    def target(self, batch: dict[str, Any]) -> Tensor:
        """Truth int64 (B, H, W) that the loss sees: 0 known, 1 unknown, 255 ignored."""
        return truth_of(self.label(batch))

    def _with_targets(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with 'target', 'weight' and, where size counts, 'pixel_weight'."""
        if 'target' in batch:
            return batch
        target = self.target(batch)
        made, unknown = {'target': target}, (target == Truth.UNKNOWN).float()
        if self.object_area:
            made['pixel_weight'] = object_weights(target, self.object_area)
            unknown = unknown * made['pixel_weight']
        made['weight'] = (target == Truth.KNOWN).sum() + self.unknown_weight * unknown.sum()
        return {**batch, **made}

    def weigh(self, batch: dict[str, Any]) -> Tensor:
        """Weight of the batch: its pixels that are not void, unknown ones times their weight."""
        return self._with_targets(batch)['weight']

    def outputs(self, maps: list[Tensor], target: Tensor) -> tuple[Tensor, Tensor | float]:
        """UEM outputs (B, 2, h, w) of feature maps, and what their head adds to the loss."""
        assert self.parts.ood is not None
        return self.parts.ood(maps), 0.0

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return 'loss', a mean over the pixels that are not void."""
        batch = self._with_targets(batch)
        maps, target = self.features(batch), batch['target']
        size = (int(target.shape[-2]), int(target.shape[-1]))
        small, added = self.outputs(maps, target)
        assert self.parts.logits is not None
        with torch.no_grad():
            logits = batch['logits'] if 'logits' in batch else self.parts.logits(maps)
        output = SegmentorOutput(logits=logits.float(), ood=small.float())
        loss = llr_loss(
            self.score(output, size),
            target,
            unknown_weight=self.unknown_weight,
            pixel_weight=batch.get('pixel_weight'),
        )
        return {'loss': loss + added}


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

    def scores(self, parts: Parts) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """
        Return likelihood ratios float32 (h, w) and their truth uint8 (0, 1, 255) of all samples.

        Raises:
            TrainingError: no sample has unknown pixels, or none has known ones.
        """
        assert parts.ood is not None
        assert parts.logits is not None
        ratio = LikelihoodRatio(self.exact)
        scores, truths = [], []
        kept = slice(self.stride // 2, None, self.stride)
        for index in self.indices:
            sample = self.dataset[(0, int(index))]
            height, width = sample['label'].shape
            maps = sample_features(parts, sample)
            output = SegmentorOutput(
                logits=parts.logits(maps).float(), ood=parts.ood(maps).float()
            )
            scores.append(ratio(output, (height, width))[0, kept, kept].cpu().numpy())
            truths.append(truth_of(sample['label'].numpy()[kept, kept]).astype(np.uint8))
        found = {int(value) for truth in truths for value in np.unique(truth)}
        if not {Truth.KNOWN, Truth.UNKNOWN} <= found:
            raise TrainingError(
                'the validation set needs known and unknown pixels (label 254, or pasted objects)'
            )
        return scores, truths


def pixel_numbers(scores: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> dict[str, float]:
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
