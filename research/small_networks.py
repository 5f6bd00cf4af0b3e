# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Training of a small network on a CPU, by the trainer of the package."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ood_training.checkpointing import TrainingError, write_weights
from ood_training.settings import Task, TrainSettings
from ood_training.trainer import Trainer


class SmallTask(Task):
    """
    A network from its inputs to one output, and the loss between it and what is wanted.

    Args:
        model: called with 'input' of a batch, a tensor or a list of them.
        loss: called with the model's output and the tensors of 'wanted'.

    """

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model: Any = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._loss = loss

    def weigh(self, batch: dict[str, Any]) -> Tensor:
        """Weight of the batch: its samples."""
        return torch.tensor(float(len(batch['name'])))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return 'loss', a mean over the samples."""
        given = batch['input'] if isinstance(batch['input'], list) else [batch['input']]
        inputs = [x.contiguous(memory_format=torch.channels_last) for x in given]
        return {'loss': self._loss(self.model(*inputs), *batch['wanted'])}


def train_small(
    model: nn.Module,
    samples: Dataset,
    loss: Callable[..., Tensor],
    output: Path,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int = 0,
    finish: Callable[[], None] | None = None,
) -> None:
    """
    Train with AdamW and one cycle of the learning rate, and write the weights.

    Args:
        model: ends in evaluation mode.
        samples: indexed by (epoch, index); hold 'input', a list 'wanted', and 'name'.
        loss: see :class:`SmallTask`.
        output: file to be written (safetensors).
        steps: of the optimiser; the same seed gives the same weights.
        batch: samples of a step.
        learning_rate: at the peak of the cycle.
        seed: of the order of the samples.
        finish: called between the training and the writing.

    Raises:
        TrainingError: no steps, a loss that is not a number, or weights that cannot be written.

    """
    settings = TrainSettings(
        steps=steps,
        batch_size=batch,
        lr=learning_rate,
        lr_end=0.005 * learning_rate,
        weight_decay=1e-2,
        schedule='one_cycle',
        warmup_steps=max(1, steps // 10),
        clip_norm=5.0,
        seed=seed,
        checkpoint_every=max(1, steps),
        log_every=100,
        accelerator='cpu',
        workers=1,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    # Nothing to resume: the samples of another call may be others.
    with tempfile.TemporaryDirectory() as folder:
        Trainer(SmallTask(model, loss), samples, settings, Path(folder)).fit()
    model.eval()
    if finish is not None:
        finish()
    write_weights(output, model.state_dict())


def start_from(model: nn.Module, path: Path | None) -> None:
    """Load weights to go on from, none = leave the model as it is. Raises TrainingError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path is None:
        return
    try:
        model.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainingError(f'{path}: cannot be started from: {error}') from error
