# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Stage 2 as the papers train it: GMM heads of the UEM, and the official BatchNorm drift."""

from __future__ import annotations

from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from torch import Tensor

from ood_perception.frames.resize import upsample
from ood_perception.labels import Truth
from ood_training.parts import Parts
from ood_training.uem import UemTask, Validate
from research.coco import open_objects
from research.commands import (
    Backbone,
    Cache,
    Data,
    LabelMapOption,
    Model,
    Out,
    PresetOption,
    Set,
    Val,
    Weights,
    errors_in_one_line,
    stage_job,
)
from research.gmm import GmmSettings, GmmTraining, contrast_loss
from research.losses import outlier_loss
from research.presets import PaperStage
from research.segmentor import FrozenMaps


class PaperUemTask(FrozenMaps, UemTask):
    """
    Train a UEM whose head may be a GMM.

    Args:
        parts: of the model.
        stage: weights of the loss, and what the papers need besides.
        validate: measures the parts, None = no validation.

    """

    def __init__(self, parts: Parts, stage: PaperStage, validate: Validate | None = None) -> None:
        super().__init__(parts, stage, validate)
        self.label_stride = stage.label_stride
        self.object_area /= stage.label_stride**2
        self.paper, self.object_least, self.alpha = stage.paper, stage.object_least, stage.alpha
        gmm = GmmSettings(update_interval=stage.update_interval)
        self.gmm = GmmTraining.of(parts.model, 'ood_head', gmm)
        self._drifting: tuple[str, ...] = ()
        if self.paper:
            self._drifting = tuple(
                f'model.{prefix}{name}'
                for module, prefix in zip(
                    parts.decoder, parts.prefixes(parts.decoder), strict=True
                )
                for name, _ in module.named_buffers()
            )

    def train(self, mode: bool = True) -> PaperUemTask:
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

    def target(self, batch: dict[str, Any]) -> Tensor:
        """Truth int64 (B, H, W) that the loss sees, without specks."""
        target = super().target(batch)
        if not self.object_least:
            return target
        return without_specks(target, self.object_least / self.label_stride**2)

    def outputs(self, maps: list[Tensor], target: Tensor) -> tuple[Tensor, Tensor | float]:
        """UEM outputs (B, 2, h, w) of maps; cross entropy and the contrast term of a GMM head."""
        if self.gmm is None:
            small, added = super().outputs(maps, target)
        else:
            assert self.parts.ood is not None
            small, contrast = self.gmm.run(self.parts.ood, maps, target)
            added = contrast_loss(contrast)
        if self.alpha:
            up = upsample(small.float(), (int(target.shape[-2]), int(target.shape[-1])))
            added = added + self.alpha * outlier_loss(up, target, self.unknown_weight)
        return small, added


def without_specks(target: Tensor, least: float) -> Tensor:
    """
    Leave out unknown objects of so few pixels that nothing tells them from their surroundings.

    A network that is asked for them learns where they are likely: along the horizon, all of it.

    Args:
        target: int (B, H, W), 1 = unknown, see `labels.truth_of`.
        least: cells; 8-connected components of fewer are void.

    Returns:
        A copy of the target.

    """
    found = target.clone()
    for row, mask in zip(found, (target == 1).cpu().numpy(), strict=True):
        _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        speck = stats[:, cv2.CC_STAT_AREA] < least
        speck[0] = False
        if speck.any():
            row[torch.from_numpy(speck[parts]).to(row.device)] = Truth.IGNORE
    return found


def command(
    data: Data,
    out: Out,
    objects: Annotated[str, typer.Option(help='To paste: rgba:folder or coco:folder.')],
    weights: Weights = '',
    preset: PresetOption = 'uem_gd',
    val: Val = '',
    val_objects: Annotated[
        str, typer.Option(help='Objects to paste into --val frames without unknown pixels.')
    ] = '',
    label_map: LabelMapOption = '',
    model: Model = '',
    backbone: Backbone = '',
    paper: Annotated[
        bool, typer.Option('--paper', help='Reproduce the official BatchNorm drift.')
    ] = False,
    cache: Cache = 0,
    set_: Set = [],  # noqa: B006
) -> None:
    """Stage 2: train the UEM on a frozen segmentor, with pasted unknown objects."""
    from ood_training import finishing
    from research.stages import run_stage

    with errors_in_one_line():
        changes = [*set_, *(['paper=true'] if paper else [])]
        job = stage_job(preset, 'uem', data, val, label_map, objects, out, model, changes, cache)
        job.weights, job.backbone = weights, backbone
        job.val_objects = open_objects(val_objects) if val_objects else None
        path, numbers = run_stage(job, 'uem')
        typer.echo(f'{path}\n{finishing.finish_uem(job, path, numbers)}')


if __name__ == '__main__':
    typer.run(command)
