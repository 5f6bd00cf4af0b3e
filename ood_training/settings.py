# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a training run is: its settings, optimiser and schedule, and what it trains."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import default_collate

from ood_perception.host_cpu import has_bfloat16_tiles
from ood_training.checkpointing import TrainingError

LESS_IS_BETTER = ('fpr95', 'loss', 'ece', 'brier')
"""Last words of validation numbers of which the smallest is the best."""

PRECISIONS = ('auto', '32-true', '16-mixed', 'bf16-mixed')


@dataclass(frozen=True)
class TrainSettings:
    """Everything that steers a run besides its data and its model."""

    steps: int = 1000  # optimiser steps
    batch_size: int = 4  # images a process and micro-batch
    accumulate: int = 1  # micro-batches an optimiser step
    optimizer: str = 'adamw'  # entry of `optimizers.OPTIMIZERS`
    lr: float = 5e-4  # peak learning rate
    lr_end: float = 1e-7  # learning rate at the last step ('linear', 'one_cycle')
    weight_decay: float = 0.0  # of the optimiser
    # 'constant', 'linear' (down to lr_end) or 'one_cycle' (cosine up and down)
    schedule: str = 'linear'
    warmup_steps: int = 0  # steps of linear warm-up; of 'one_cycle' the length of the rise
    warmup_factor: float = 0.0  # fraction of lr at step 0
    # '32-true', '16-mixed', 'bf16-mixed', or 'auto': 'bf16-mixed' on a CPU that multiplies
    # bfloat16 in tiles (AMX), '32-true' elsewhere
    precision: str = '32-true'
    ema: float = 0.0  # decay of the averaged weights that are kept in the end, 0 = none
    clip_norm: float = 0.0  # largest gradient norm, 0 = no clipping
    seed: int = 2000  # of everything random
    workers: int = 0  # processes that load data
    checkpoint_every: int = 500  # steps between checkpoints
    validate_every: int = 0  # steps between validations, 0 = only at the end
    log_every: int = 10  # steps between rows of the log
    # validation number that picks the kept weights ('' keeps the last); '-' before its name: less
    # is better, as it is of LESS_IS_BETTER anyway
    monitor: str = ''
    accelerator: str = 'auto'  # 'auto', 'cpu' or 'gpu'
    devices: int = 1  # processes; under torchrun as many as it starts

    def check(self) -> None:
        """Raise TrainingError for a value out of range, naming it."""
        choices: dict[str, Iterable[str]] = {
            'schedule': SCHEDULES,
            'optimizer': OPTIMIZERS,
            'precision': PRECISIONS,
            'accelerator': ('auto', 'cpu', 'gpu'),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise TrainingError(
                    f'{name}: expected one of {", ".join(allowed)}, got {getattr(self, name)!r}'
                )
        whole = ('steps', 'batch_size', 'accumulate', 'checkpoint_every', 'log_every')
        for name in (*whole, 'devices'):
            if getattr(self, name) < 1:
                raise TrainingError(f'{name}: expected 1 or more, got {getattr(self, name)}')
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise TrainingError(f'lr: expected a number above 0, got {self.lr}')
        if not 0 <= self.ema < 1:
            raise TrainingError(f'ema: expected 0 <= ema < 1, got {self.ema}')

    def for_this_machine(self) -> TrainSettings:
        """Return the settings with precision 'auto' decided, so that the record says which."""
        if self.precision != 'auto':
            return self
        fast = self.accelerator == 'cpu' and has_bfloat16_tiles()
        return dataclasses.replace(self, precision='bf16-mixed' if fast else '32-true')


Optimizer = torch.optim.Optimizer
Schedule = lr_scheduler.LRScheduler


def _adamw(settings: Any, parameters: Sequence[nn.Parameter]) -> list[Optimizer]:
    options = {'lr': settings.lr, 'weight_decay': settings.weight_decay}
    return [torch.optim.AdamW(parameters, **options)]


def _one_cycle(settings: Any, optimizer: Optimizer) -> Schedule:
    s = settings
    rise, lowest = max(s.warmup_steps, 1), max(s.warmup_factor, 1e-9)
    return lr_scheduler.OneCycleLR(
        optimizer,
        s.lr,
        total_steps=max(s.steps, rise) + 1,
        pct_start=(rise + 1) / (max(s.steps, rise) + 1),
        div_factor=1 / lowest,
        final_div_factor=s.lr * lowest / max(s.lr_end, 1e-12),
        cycle_momentum=False,
    )


def _constant(settings: Any, optimizer: Optimizer) -> Schedule:
    return warmed_up(settings, optimizer, lr_scheduler.ConstantLR(optimizer, 1.0))


def _linear(settings: Any, optimizer: Optimizer) -> Schedule:
    rest = max(settings.steps - settings.warmup_steps, 1)
    fall = lr_scheduler.LinearLR(optimizer, 1.0, settings.lr_end / settings.lr, rest)
    return warmed_up(settings, optimizer, fall)


def warmed_up(settings: Any, optimizer: Optimizer, then: Schedule) -> Schedule:
    """Put the linear warm-up of the settings, if there is one, before another schedule."""
    if not settings.warmup_steps:
        return then
    # LinearLR takes no factor of 0.
    first = max(settings.warmup_factor, 1e-9)
    rise = lr_scheduler.LinearLR(optimizer, first, 1.0, settings.warmup_steps)
    return lr_scheduler.SequentialLR(optimizer, [rise, then], [settings.warmup_steps])


OPTIMIZERS: dict[str, Callable[[Any, Sequence[nn.Parameter]], list[Optimizer]]] = {'adamw': _adamw}
"""Name -> function (settings, parameters) that makes the optimisers of a run, one or more."""

SCHEDULES: dict[str, Callable[[Any, Optimizer], Schedule]] = {
    'constant': _constant,
    'linear': _linear,
    'one_cycle': _one_cycle,
}
"""Name -> function (settings, optimiser) that makes its schedule."""


def create_schedule(settings: Any, optimizer: Optimizer, done: int = 0) -> Schedule:
    """Learning rate of an optimiser that has done `done` steps; ask for `step()` after each."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # on steps of the schedule without steps of an optimiser
        schedule = SCHEDULES[settings.schedule](settings, optimizer)
        for _ in range(done):
            schedule.step()
    return schedule


class Task(nn.Module):
    """
    What a run trains: a module that turns a batch into its loss.

    A batch is what the data set yields, collated: 'image' uint8 (B, 3, H, W), 'label' int64
    (B, H, W), 'name' list of str.
    """

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of samples, in the process that loads them."""
        return default_collate(list(samples))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return float () tensors: 'loss', a mean over the batch's valid pixels, and its parts."""
        raise NotImplementedError

    def weigh(self, batch: dict[str, Any]) -> Tensor:
        """Weight of the batch in the mean over micro-batches and processes: its valid pixels."""
        return (batch['label'] != 255).sum().float()

    def validate(self) -> dict[str, float]:
        """Numbers measured on the validation set; empty where there is none."""
        return {}

    def trained_state(self) -> dict[str, Tensor]:
        """Entries of the state dict that training may change."""
        return self.state_dict()

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`trained_state` gave. Raises TrainingError naming the keys at odds."""
        mine = self.trained_state()
        if missing := sorted(set(mine) ^ set(state)):
            raise TrainingError(f'checkpoint and model differ in {", ".join(missing[:5])}')
        for name, value in state.items():
            if value.shape != mine[name].shape:
                raise TrainingError(
                    f'checkpoint: {name} is {tuple(value.shape)}, the model has '
                    f'{tuple(mine[name].shape)}'
                )
        with torch.no_grad():
            for name, value in state.items():
                mine[name].copy_(value)
