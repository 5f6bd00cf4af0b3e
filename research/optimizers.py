# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What the papers and the retraining need besides: Muon, SGD, and a rate that falls in steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from ood_training.checkpointing import TrainingError
from ood_training.settings import OPTIMIZERS, SCHEDULES, TrainSettings, warmed_up


@dataclass(frozen=True)
class PaperSettings(TrainSettings):
    """
    Settings of a run with the optimisers 'muon' and 'sgd' and the schedule 'step'.

    Attributes:
        momentum: of 'sgd'.
        milestones: steps at which 'step' divides the rate by ten.

    """

    momentum: float = 0.9
    milestones: tuple[int, ...] = ()


def _sgd(settings: Any, parameters: Sequence[nn.Parameter]) -> list[torch.optim.Optimizer]:
    options = {'lr': settings.lr, 'weight_decay': settings.weight_decay}
    return [torch.optim.SGD(parameters, momentum=settings.momentum, **options)]


def _muon(settings: Any, parameters: Sequence[nn.Parameter]) -> list[torch.optim.Optimizer]:
    """AdamW for what is no matrix, Muon for what is. Raises TrainingError: torch lacks it."""
    matrices = [p for p in parameters if is_matrix(p)]
    others = [p for p in parameters if not is_matrix(p)]
    optimizers = OPTIMIZERS['adamw'](settings, others) if others else []
    if matrices:
        if not hasattr(torch.optim, 'Muon'):
            raise TrainingError(f'optimizer muon needs torch 2.9; this is {torch.__version__}')
        options = {'lr': settings.lr, 'weight_decay': settings.weight_decay}
        optimizers.append(kernel_muon(matrices, **options))
    return optimizers


def _step(settings: Any, optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    later = [milestone - settings.warmup_steps for milestone in settings.milestones]
    return warmed_up(settings, optimizer, lr_scheduler.MultiStepLR(optimizer, later))


OPTIMIZERS |= {'sgd': _sgd, 'muon': _muon}
SCHEDULES |= {'step': _step}


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
