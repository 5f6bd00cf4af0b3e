# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Optimisers and learning-rate schedules of torch, as the settings of a run name them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.settings import TrainSettings


def create_optimizers(
    settings: TrainSettings, parameters: Sequence[nn.Parameter]
) -> list[torch.optim.Optimizer]:
    """
    Make the optimisers of a run.

    Returns:
        One, or for 'muon' two: Muon for the matrices (none where there is none), AdamW for all
        other parameters.

    Raises:
        TrainingError: Muon in a torch that lacks it.

    """
    options: dict[str, Any] = {'lr': settings.lr, 'weight_decay': settings.weight_decay}
    if settings.optimizer == 'sgd':
        return [torch.optim.SGD(parameters, momentum=settings.momentum, **options)]
    matrices = [p for p in parameters if is_matrix(p)] if settings.optimizer == 'muon' else []
    chosen = {id(p) for p in matrices}
    others = [p for p in parameters if id(p) not in chosen]
    optimizers: list[torch.optim.Optimizer] = []
    if others:
        optimizers.append(torch.optim.AdamW(others, **options))
    if matrices:
        if not hasattr(torch.optim, 'Muon'):
            raise TrainingError(f'optimizer muon needs torch 2.9; this is {torch.__version__}')
        optimizers.append(kernel_muon(matrices, **options))
    return optimizers


def create_schedule(
    settings: TrainSettings, optimizer: torch.optim.Optimizer, done: int = 0
) -> lr_scheduler.LRScheduler:
    """Learning rate of an optimiser that has done `done` steps; ask for `step()` after each."""
    s = settings
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # on steps of the schedule without steps of an optimiser
        schedule = _one_cycle(optimizer, s) if s.schedule == 'one_cycle' else _warm(optimizer, s)
        for _ in range(done):
            schedule.step()
    return schedule


def _one_cycle(optimizer: torch.optim.Optimizer, s: TrainSettings) -> lr_scheduler.LRScheduler:
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


def _warm(optimizer: torch.optim.Optimizer, s: TrainSettings) -> lr_scheduler.LRScheduler:
    rest = max(s.steps - s.warmup_steps, 1)
    then: lr_scheduler.LRScheduler
    if s.schedule == 'constant':
        then = lr_scheduler.ConstantLR(optimizer, 1.0)
    elif s.schedule == 'linear':
        then = lr_scheduler.LinearLR(optimizer, 1.0, s.lr_end / s.lr, rest)
    elif s.schedule == 'step':
        later = [milestone - s.warmup_steps for milestone in s.milestones]
        then = lr_scheduler.MultiStepLR(optimizer, later)
    else:
        then = lr_scheduler.CosineAnnealingLR(optimizer, rest, s.lr_end)
    if not s.warmup_steps:
        return then
    # LinearLR takes no factor of 0.
    rise = lr_scheduler.LinearLR(optimizer, max(s.warmup_factor, 1e-9), 1.0, s.warmup_steps)
    return lr_scheduler.SequentialLR(optimizer, [rise, then], [s.warmup_steps])


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon's step is made for it: more than two outputs and more than nine inputs."""
    return parameter.ndim >= 2 and parameter.shape[0] > 2 and parameter[0].numel() > 9


def kernel_muon(kernels: Sequence[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    """
    Make torch's Muon for kernels of any shape, each a matrix (outputs, inputs x height x width).

    Its step has the root mean square of AdamW's, so both share learning rate and weight decay (Liu
    et al., "Muon is scalable for LLM training", 2025).

    Args:
        kernels: on the device where they stay; changed in place by every step.
        options: more arguments of `torch.optim.Muon`.

    """

    class KernelMuon(torch.optim.Muon):
        def step(self, closure: Any = None) -> Any:
            for kernel, matrix in zip(kernels, self.param_groups[0]['params'], strict=True):
                matrix.grad = None
                if kernel.grad is not None:
                    matrix.grad = _matrix(kernel.grad, like=kernel).reshape(matrix.shape)
            return super().step(closure)

        def zero_grad(self, set_to_none: bool = True) -> None:
            super().zero_grad(set_to_none)
            for kernel in kernels:
                kernel.grad = None

    matrices = [_matrix(kernel.detach(), like=kernel).view(len(kernel), -1) for kernel in kernels]
    return KernelMuon(matrices, adjust_lr_fn='match_rms_adamw', **options)


def _matrix(value: Tensor, like: Tensor) -> Tensor:
    """Order the axes as they lie in memory; Muon does not care for the order of the inputs."""
    return value if like.is_contiguous() else value.movedim(1, -1)
