# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The loop that trains a small network on a CPU, for a time or for a number of steps."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ood_perception.training.checkpointing import TrainingError

Told = Callable[[float, float], None]
"""Called with the share done 0..1 and the loss, about once a second."""


def fit(
    model: nn.Module,
    batch: Callable[[], tuple[Tensor, ...]],
    loss_of: Callable[..., Tensor],
    seconds: float,
    steps: int = 0,
    learning_rate: float = 3e-3,
    told: Told | None = None,
) -> int:
    """
    Train with AdamW and a one-cycle schedule; the model ends in evaluation mode.

    Args:
        model: called with the first tensor of each batch.
        batch: makes the tensors of the next step.
        loss_of: called with the model's output and the other tensors of the batch.
        seconds: of wall time; what is learnt then depends on the machine's speed.
        steps: instead of the time, if not 0; the same seed then gives the same weights.
        learning_rate: at the peak of the schedule.
        told: see `Told`.

    Returns:
        Steps done.

    Raises:
        TrainingError: neither time nor steps, or the loss is not a number.

    """
    if seconds <= 0 and steps <= 0:
        raise TrainingError(f'expected seconds or steps above 0, got {seconds} and {steps}')
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=1e-2)
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    begin = reported = time.monotonic()
    for step in itertools.count():
        done = step / steps if steps else (time.monotonic() - begin) / seconds
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group['lr'] = learning_rate * one_cycle(done)
        inputs, *wanted = batch()
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        loss = loss_of(model(inputs), *wanted)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(f'the loss became {value} at step {step}; nothing was written')
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        if told is not None and time.monotonic() - reported > 1:
            reported = time.monotonic()
            told(done, value)
    model.eval()
    return step


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


def one_cycle(done: float) -> float:
    """Factor of the learning rate at the share `done` 0..1: up for a tenth, then a cosine."""
    if done < 0.1:
        return done / 0.1
    return max(0.005, 0.5 * (1 + float(np.cos(np.pi * (done - 0.1) / 0.9))))
