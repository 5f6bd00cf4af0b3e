# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Stage 1: a decoder and head for the known classes on a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.models.compact import channels_last
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.gmm import GmmMemory, GmmSettings, gmm_training_step
from ood_perception.training.losses import segmentation_loss
from ood_perception.training.parts import Parts, normalise
from ood_perception.training.settings import Task

Validate = Callable[[Parts], dict[str, float]]


class StageTask(Task):
    """
    What both stages share: the model's parts, frozen features (computed or from the cache).

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

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of samples; maps are laid out as CPUs convolve them fastest."""
        batch = super().collate(samples)
        if 'features' in batch:
            batch['features'] = channels_last(batch['features'])
        return batch

    @torch.no_grad()
    def features(self, batch: dict[str, Any]) -> list[Tensor]:
        """Frozen maps of a batch: those it carries (from the cache), or computed now."""
        if 'features' in batch:
            return [maps.float() for maps in batch['features']]
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


class SegmentorTask(StageTask):
    """
    Train decoder and class head: cross entropy, plus the contrast term of a GMM head.

    Args:
        parts: of the model.
        validate: see :class:`StageTask`.
        gmm: how a GMM head learns.
        label_stride: see :class:`StageTask`.

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
        super().__init__(parts, parts.decoder, validate, label_stride)
        self.gmm = GmmTraining.of(parts.class_head, gmm or GmmSettings())

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
        return {'loss': segmentation_loss(logits, label, contrast)}


class GmmTraining(nn.Module):
    """Memory of a GMM head, and its training step in place of its forward pass."""

    def __init__(self, head: nn.Module, settings: GmmSettings) -> None:
        super().__init__()
        self._head = [head]  # in a list: its state belongs to the model
        means: Any = head.means
        classes, components, dim = means.shape
        self.memory = GmmMemory(classes, components, dim, settings)

    @classmethod
    def of(cls, head: nn.Module | None, settings: GmmSettings) -> GmmTraining | None:
        """Build it where the head is a GMM, otherwise None."""
        return cls(head, settings) if head is not None and hasattr(head, 'diagonal') else None

    def run(
        self, forward: Callable[[Any], Tensor], maps: list[Tensor], label: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run `forward`, with the head's part replaced by its training step."""
        head = self._head[0]
        found: list[tuple[Tensor, tuple[Tensor, Tensor]]] = []

        def step(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found.append(gmm_training_step(module, self.memory, inputs[0], label))

        with head.register_forward_pre_hook(step):
            forward(maps)
        return found[0]
