# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The training loop, on Lightning Fabric: one GPU or many, mixed precision, EMA, exact resume.

Everything random is a function of (seed, step), so a run that is killed and resumed yields the
weights of the run that was not, and the number of loading processes changes nothing. The loss is
a mean over all valid pixels of an optimiser step, whatever micro-batch or process holds them, so
two processes of batch n follow the curve of one process of batch 2n.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset

from ood_training.checkpointing import (
    TrainingError,
    check_space,
    load_latest,
    save_checkpoint,
)
from ood_training.data import StreamSampler, loader
from ood_training.settings import LESS_IS_BETTER, OPTIMIZERS, Task, TrainSettings, create_schedule

log = logging.getLogger(__name__)

FREE = (
    'steps', 'workers', 'checkpoint_every', 'log_every', 'accelerator', 'validate_every',
)  # fmt: skip
"""Settings that steer where and how long a run goes, which may change between its parts."""


class Trainer:
    """
    A run of one task in one folder; resumes from the folder's newest whole checkpoint.

    Args:
        task: what is trained; moved to the device.
        dataset: map-style, indexed by (epoch, index), see `data.TrainingSet`.
        folder: where checkpoints (`step_*.ckpt`) and logs (`log`, `tensorboard`) go.
        record: plain values kept in every checkpoint (preset, label map, data).

    Attributes:
        step: optimiser steps done.
        best: validation numbers of the kept weights.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        settings: TrainSettings,
        folder: Path,
        record: dict[str, Any] | None = None,
    ) -> None:
        settings.check()
        settings = settings.for_this_machine()
        self.settings, self.folder, self.record = settings, Path(folder), record or {}
        self.fabric = create_fabric(settings, self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(dataset) == 0:  # type: ignore[arg-type]
            raise TrainingError('the training set is empty')
        self.task, self.dataset = task, dataset
        self.step = 0
        self.best: dict[str, float] = {}
        self._kept: dict[str, Tensor] | None = None
        if self.fabric.world_size > 1 and self.fabric.device.type == 'cuda':
            nn.SyncBatchNorm.convert_sync_batchnorm(task)
        parameters = [p for p in task.parameters() if p.requires_grad]
        if not parameters:
            raise TrainingError('the model has no parameter to train')
        # On its device first: Muon's matrices are views of the kernels.
        self.module = self.fabric.setup_module(task)
        optimizers = OPTIMIZERS[settings.optimizer](settings, parameters)
        self.optimizers = [self.fabric.setup_optimizers(each) for each in optimizers]
        self.average = _copy(task.trained_state()) if settings.ema else None
        self._resume()
        self.schedules = [create_schedule(settings, each, self.step) for each in optimizers]
        tensors = (leaf for leaf in tree_leaves(self._state()) if isinstance(leaf, Tensor))
        check_space(self.folder, 4 * sum(tensor.nbytes for tensor in tensors))

    def fit(self) -> dict[str, float]:
        """
        Train to the last step; afterwards the task holds the kept (best, averaged) weights.

        Returns:
            The validation numbers of the kept weights.

        Raises:
            TrainingError: the loss is not a number (the state before that step is saved), or a
                checkpoint cannot be written at the end.
        """
        s = self.settings
        self.module.train()
        began, first = time.monotonic(), self.step
        batches = self._batches()
        while self.step < s.steps:
            values = self._train_step([next(batches) for _ in range(s.accumulate)])
            self.step += 1
            last = self.step == s.steps
            if last or self.step % s.log_every == 0:
                images = s.batch_size * s.accumulate * self.fabric.world_size
                rate = images * (self.step - first) / (time.monotonic() - began)
                self._log('train', {**values, 'images_per_s': rate})
            if last or (s.validate_every and self.step % s.validate_every == 0):
                self._validate()
            if last or self.step % s.checkpoint_every == 0:
                self.save(required=last)
        self._use(self._kept or self.average)
        return self.best

    def _log(self, kind: str, values: dict[str, float]) -> None:
        """Note numbers of kind 'train' or 'val' of the step."""
        self.fabric.log_dict({f'{kind}/{k}': v for k, v in values.items()}, self.step)
        if self.fabric.is_global_zero and values:
            line = ' '.join(f'{name} {value:.4g}' for name, value in values.items())
            log.info('step %d of %d, %s: %s', self.step, self.settings.steps, kind, line)

    def save(self, required: bool = True) -> None:
        """Write a checkpoint; where it is not required, a failure is a warning."""
        if self.fabric.is_global_zero:
            try:
                save_checkpoint(self.folder, self.step, self._state())
            except TrainingError as error:
                if required:
                    raise
                log.warning('%s', error)
        self.fabric.barrier()

    def _train_step(self, batches: list[dict[str, Any]]) -> dict[str, float]:
        fabric = self.fabric
        # The same numbers whether or not the run was interrupted, and others on every process.
        torch.manual_seed(_seed(self.settings.seed, self.step, fabric.global_rank))
        rate = self.schedules[0].get_last_lr()[0]
        batches = [fabric.to_device(batch) for batch in batches]
        weights = [self.task.weigh(batch) for batch in batches]
        total = _sum(fabric, torch.stack(weights).sum()).clamp(min=1e-6)
        logged: dict[str, Tensor] = {}
        for i, (batch, weight) in enumerate(zip(batches, weights, strict=True)):
            waiting = i + 1 < len(batches)
            with fabric.no_backward_sync(self.module, enabled=waiting):
                losses = self.module(batch)
                share = weight / total
                # Processes average their gradients; the share makes that a sum of shares.
                fabric.backward(losses['loss'] * share * fabric.world_size)
            for name, value in losses.items():
                logged[name] = logged.get(name, 0) + value.detach() * share
        sums = _sum(fabric, torch.stack(list(logged.values()))).tolist()
        values = dict(zip(logged, sums, strict=True))
        if not all(map(math.isfinite, sums)):
            self._stop_for_nan(values, batches)
        if self.settings.clip_norm:
            limit = self.settings.clip_norm
            fabric.clip_gradients(self.module, self.optimizers[0], max_norm=limit)
        for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        self._average()
        return {**values, 'lr': float(rate)}

    def _stop_for_nan(self, values: dict[str, float], batches: list[dict[str, Any]]) -> None:
        names = [name for batch in batches for name in batch.get('name', [])]
        self.save(required=False)
        raise TrainingError(
            f'step {self.step}: the loss is {values}; images: {", ".join(names) or "unnamed"}. '
            f'The state before this step is in {self.folder}. Lower lr, set clip_norm, or use '
            f'precision 32-true or bf16-mixed, then start again'
        )

    @torch.no_grad()
    def _average(self) -> None:
        if self.average is None:
            return
        # A short memory at first, so that the random start does not linger in the average.
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        state = self.task.trained_state()
        floats = [name for name, value in state.items() if value.is_floating_point()]
        means = [self.average[name] for name in floats]
        if means:
            get_ema_multi_avg_fn(decay)(means, [state[name] for name in floats], None)
        for name in state.keys() - floats:
            self.average[name].copy_(state[name])

    def _validate(self) -> None:
        """Validate the averaged weights where there are any; keep the best."""
        monitor = self.settings.monitor.removeprefix('-')
        state = _copy(self.task.trained_state())
        self._use(self.average)
        values: dict[str, float] = {}
        if self.fabric.is_global_zero:
            modes = [(module, module.training) for module in self.task.modules()]
            values = self.task.validate()
            for module, mode in modes:
                module.training = mode
            self._log('val', values)
            if values and monitor and monitor not in values:
                raise TrainingError(f'monitor: no {monitor!r} among {", ".join(values)}')
            less = monitor != self.settings.monitor or monitor.endswith(LESS_IS_BETTER)
            sign = -1 if less else 1
            if values and (
                not monitor or not self.best or sign * values[monitor] >= sign * self.best[monitor]
            ):
                self.best = {**values, 'step': float(self.step)}
                self._kept = _copy(self.task.trained_state()) if monitor else None
        self._use(state)
        self.fabric.barrier()

    def _use(self, state: dict[str, Tensor] | None) -> None:
        if state is not None:
            self.task.load_trained_state(state)

    def _batches(self) -> Iterator[dict[str, Any]]:
        s, fabric = self.settings, self.fabric
        begin, end = self.step * s.accumulate, s.steps * s.accumulate
        length: int = len(self.dataset)  # type: ignore[arg-type]
        sampler = StreamSampler(
            length, s.batch_size, s.seed, begin, end, fabric.global_rank, fabric.world_size
        )
        cuda = fabric.device.type == 'cuda'
        options = {'collate_fn': self.task.collate, 'pin_memory': cuda}
        return iter(loader(self.dataset, sampler, s.workers, **options))

    def _state(self) -> dict[str, Any]:
        scaler = getattr(self.fabric.strategy.precision, 'scaler', None)
        return {
            'step': self.step,
            'task': self.task.trained_state(),
            'optimizers': [each.state_dict() for each in self.optimizers],
            'average': self.average,
            'kept': self._kept,
            'best': self.best,
            'scaler': scaler and scaler.state_dict(),
            'settings': dataclasses.asdict(self.settings),
            'record': self.record,
        }

    def _resume(self) -> None:
        found = load_latest(self.folder)
        if found is None:
            return
        state, path = found
        mine, theirs = dataclasses.asdict(self.settings), state['settings']
        differ = [k for k in mine if k in theirs and k not in FREE and mine[k] != theirs[k]]
        if differ:
            listed = ', '.join(f'{k} {theirs[k]} -> {mine[k]}' for k in differ)
            raise TrainingError(
                f'{path}: was made with other settings ({listed}); use a new folder'
            )
        self.task.load_trained_state(state['task'])
        try:
            for each, saved in zip(self.optimizers, state['optimizers'], strict=True):
                each.load_state_dict(saved)
        except (ValueError, KeyError) as error:
            raise TrainingError(
                f'{path}: trains other parameters ({error}); use a new folder'
            ) from error
        self.average, self._kept = (
            kept and {k: v.to(self.fabric.device) for k, v in kept.items()}
            for kept in (state['average'], state['kept'])
        )
        self.best, self.step = state['best'], state['step']
        if state['scaler'] is not None:
            self.fabric.strategy.precision.scaler.load_state_dict(state['scaler'])
        log.info('resumed from %s at step %d', path, self.step)


def create_fabric(settings: TrainSettings, folder: Path) -> Any:
    """Lightning Fabric that logs to a folder, launched. Raises TrainingError: not installed."""
    try:
        from lightning.fabric import Fabric
        from lightning.fabric.loggers import CSVLogger, TensorBoardLogger
        from lightning.fabric.strategies import DDPStrategy
    except ImportError as error:
        raise TrainingError(
            "training needs Lightning: pip install 'ood_perception[train]'"
        ) from error
    # log/version_N/metrics.csv, N counting the starts of the run; TensorBoard where it is
    loggers: list[Any] = [CSVLogger(folder, 'log', flush_logs_every_n_steps=1)]
    with contextlib.suppress(ImportError):
        loggers.append(TensorBoardLogger(folder, 'tensorboard'))
    fabric = Fabric(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,  # type: ignore[arg-type]
        # Buffers stay as each process computes them: a GMM head's memory is too large to send.
        strategy=DDPStrategy(broadcast_buffers=False) if settings.devices > 1 else 'auto',
        loggers=loggers,
    )
    fabric.launch()
    torch.manual_seed(settings.seed)
    return fabric


def _seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, the same in every process and version."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}


def _sum(fabric: Any, value: Tensor) -> Tensor:
    return fabric.all_reduce(value, reduce_op='sum') if fabric.world_size > 1 else value
