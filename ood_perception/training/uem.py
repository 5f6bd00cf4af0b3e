# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Stage 2: the UEM, trained by the likelihood-ratio loss on top of a frozen segmentor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.likelihood_ratio import LikelihoodRatio, UemScore
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.gmm import GmmSettings
from ood_perception.training.losses import (
    llr_loss,
    object_weights,
    ood_target,
    upsample,
    without_specks,
)
from ood_perception.training.parts import Parts
from ood_perception.training.segmentor import GmmTraining, StageTask, Validate


class UemTask(StageTask):
    """
    Train a UEM; the segmentor is frozen, in evaluation mode.

    Args:
        parts: of the model.
        validate: see :class:`StageTask`.
        alpha: weight of the cross entropy over the UEM's outputs (0.5 for G-G, 0 otherwise).
        unknown_weight: weight of unknown pixels against known ones (1 in the paper).
        paper: run the segmentor's decoder in training mode, without gradients, as the official
            code does by accident: its BatchNorm uses batch statistics, and its running statistics
            drift and are saved.
        gmm: how a GMM head of the UEM learns.
        label_stride: see :class:`StageTask`.
        object_area: pixels; smaller unknown objects weigh more, see `losses.object_weights`
            (0 = no, as in the paper).
        object_least: pixels; unknown objects of fewer are void, see `losses.without_specks`.
        exact: as of `scores.LikelihoodRatio`, so that a network learns for the score it is used
            with: True upsamples the class logits and the UEM, False their ratio.

    """

    def __init__(
        self,
        parts: Parts,
        validate: Validate | None = None,
        alpha: float = 0.0,
        unknown_weight: float = 1.0,
        paper: bool = False,
        gmm: GmmSettings | None = None,
        label_stride: int = 1,
        object_area: float = 0.0,
        object_least: int = 0,
        exact: bool = True,
    ) -> None:
        if parts.ood is None:
            raise TrainingError(f'{type(parts.model).__name__} has no UEM')
        super().__init__(parts, parts.uem, validate, label_stride)
        self.alpha, self.unknown_weight, self.paper = alpha, unknown_weight, paper
        self.object_area, self.object_least = object_area, object_least
        self.score = UemScore() if parts.logits is None else LikelihoodRatio(exact)
        self.gmm = GmmTraining.of(parts.ood_head, gmm or GmmSettings(update_interval=3))
        self._drifting: tuple[str, ...] = ()
        if paper:
            self._drifting = tuple(
                f'model.{prefix}{name}'
                for module, prefix in zip(
                    parts.decoder, parts.prefixes(parts.decoder), strict=True
                )
                for name, _ in module.named_buffers()
            )

    def train(self, mode: bool = True) -> UemTask:
        """Set the mode; with `paper` also that of the segmentor's decoder."""
        super().train(mode)
        if self.paper:
            for module in self.parts.decoder:
                module.train(mode)
        return self

    def trained_state(self) -> dict[str, Tensor]:
        """State of the UEM and, with `paper`, the drifting statistics."""
        state = self.state_dict()
        drifting = {name: state[name] for name in self._drifting if name in state}
        return {**super().trained_state(), **drifting}

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of samples; its targets take time, which the loading process has."""
        return self._with_targets(super().collate(samples))

    def _with_targets(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with 'target', 'weight' and, where size counts, 'pixel_weight'."""
        if 'target' in batch:
            return batch
        target = ood_target(self.label(batch))
        if self.object_least:
            target = without_specks(target, self.object_least / self.label_stride**2)
        made, unknown = {'target': target}, (target == 1).float()
        if self.object_area:
            area = self.object_area / self.label_stride**2
            made['pixel_weight'] = object_weights(target, area)
            unknown = unknown * made['pixel_weight']
        made['weight'] = (target == 0).sum() + self.unknown_weight * unknown.sum()
        return {**batch, **made}

    def weigh(self, batch: dict[str, Any]) -> Tensor:
        """Weight of the batch: its pixels that are not void, unknown ones times their weight."""
        return self._with_targets(batch)['weight']

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return 'loss', a mean over the pixels that are not void."""
        assert self.parts.ood is not None
        batch = self._with_targets(batch)
        maps, target = self.features(batch), batch['target']
        size = (int(target.shape[-2]), int(target.shape[-1]))
        contrast = None
        if self.gmm is None:
            small = self.parts.ood(maps)
        else:
            small, contrast = self.gmm.run(self.parts.ood, maps, target)
        output = SegmentorOutput(ood=small.float())
        if self.parts.logits is not None:
            with torch.no_grad():
                logits = batch['logits'] if 'logits' in batch else self.parts.logits(maps)
            output.logits = logits.float()
        loss = llr_loss(
            self.score(output, size),
            target,
            ood=upsample(small.float(), size) if self.alpha else None,
            alpha=self.alpha,
            contrast=contrast,
            unknown_weight=self.unknown_weight,
            pixel_weight=batch.get('pixel_weight'),
        )
        return {'loss': loss}


def modules_in_training(module: nn.Module) -> list[str]:
    """Names of the submodules in training mode, to see what is frozen."""
    return [name for name, part in module.named_modules() if part.training]
