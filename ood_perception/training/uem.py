# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Training of a UEM by the likelihood-ratio loss, on top of a frozen segmentor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.labels import truth_of
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.logits import LikelihoodRatio, UemScore
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.losses import llr_loss, object_weights
from ood_perception.training.parts import Parts, normalise
from ood_perception.training.settings import Task

Validate = Callable[[Parts], dict[str, float]]


class StageTask(Task):
    """
    What stages share: the model's parts and frozen features.

    Args:
        parts: of the model.
        trained: modules that the stage trains; all else is frozen and in evaluation mode.
        validate: measures the parts in evaluation mode, None = no validation.
        label_stride: the loss sees every n-th row and column of the label (1 in the papers). An
            even one shifts what is learnt by half a pixel: no pixel lies in the middle of a cell.
    """

    def __init__(
        self,
        parts: Parts,
        trained: list[nn.Module],
        validate: Validate | None = None,
        label_stride: int = 1,
    ) -> None:
        super().__init__()
        self.parts, self.model = parts, parts.model
        self._trained = list(trained)
        self._validate, self.label_stride = validate, label_stride
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
        n = self.label_stride
        return batch['label'][:, n // 2 :: n, n // 2 :: n].long()

    def weigh(self, batch: dict[str, Any]) -> Tensor:
        """Weight of the batch: its pixels that are not void."""
        return (self.label(batch) != 255).sum().float()

    def validate(self) -> dict[str, float]:
        """Numbers on the validation set, in evaluation mode."""
        if self._validate is None:
            return {}
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                return self._validate(self.parts)
        finally:
            self.train(training)


class UemTask(StageTask):
    """
    Train a UEM; the segmentor is frozen, in evaluation mode.

    Args:
        parts, validate, label_stride: see :class:`StageTask`.
        unknown_weight: weight of unknown pixels against known ones (1 in the paper).
        object_area: pixels; smaller unknown objects weigh more, see `losses.object_weights`
            (0 = no, as in the paper).
        exact: as of `scores.LikelihoodRatio`, so that a network learns for the score it is used
            with: True upsamples the class logits and the UEM, False their ratio.
    """

    def __init__(
        self,
        parts: Parts,
        validate: Validate | None = None,
        unknown_weight: float = 1.0,
        label_stride: int = 1,
        object_area: float = 0.0,
        exact: bool = True,
    ) -> None:
        if parts.ood is None:
            raise TrainingError(f'{type(parts.model).__name__} has no UEM')
        super().__init__(parts, parts.uem, validate, label_stride)
        self.unknown_weight, self.object_area = unknown_weight, object_area
        self.score = UemScore() if parts.logits is None else LikelihoodRatio(exact)

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
        output = SegmentorOutput(ood=small.float())
        if self.parts.logits is not None:
            with torch.no_grad():
                logits = batch['logits'] if 'logits' in batch else self.parts.logits(maps)
            output.logits = logits.float()
        loss = llr_loss(
            self.score(output, size),
            target,
            unknown_weight=self.unknown_weight,
            pixel_weight=batch.get('pixel_weight'),
        )
        return {'loss': loss + added}
