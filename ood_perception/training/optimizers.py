# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Optimisers and learning-rate schedules of torch, by the names that the settings of a run use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

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
