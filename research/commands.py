# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What the commands of this folder share: options, the job of a stage, errors in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ood_perception.cli.common import fail
from ood_perception.cli.train import Data, LabelMapOption, command_line
from ood_perception.profile import ProfileError
from ood_training import run
from ood_training.checkpointing import TrainingError
from ood_training.presets import find_preset, override
from ood_training.sources import open_frames
from research.coco import open_objects
from research.presets import PRESETS

Out = Annotated[Path, typer.Option(help='Folder of the run; the same folder resumes it.')]
Val = Annotated[str, typer.Option(help='Validation frames, like --data; none = no validation.')]
PresetOption = Annotated[str, typer.Option('--preset', help='All hyper-parameters by one name.')]
Set = Annotated[
    list[str], typer.Option('--set', help='Override one of them, e.g. steps=500 or lr=1e-3.')
]
Weights = Annotated[str, typer.Option(help='Weights to start from: file, catalogue name.')]
Model = Annotated[str, typer.Option(help="Segmentor; default the preset's.")]
Backbone = Annotated[str, typer.Option(help="The frozen backbone's own weights.")]
Cache = Annotated[
    int, typer.Option(help='Keep the frozen features of so many samples on disk; 0 = none.')
]
__all__ = [
    'Backbone',
    'Cache',
    'Data',
    'LabelMapOption',
    'Model',
    'Out',
    'PresetOption',
    'Set',
    'Val',
    'Weights',
    'command_line',
    'errors_in_one_line',
    'stage_job',
]


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn what a user can put right into one red line; show the progress of the libraries."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        yield
    except (TrainingError, ProfileError) as error:
        raise fail(error) from None


def stage_job(
    preset: str,
    kind: str,
    data: list[str],
    val: str,
    label_map: str,
    objects: str,
    out: Path,
    model: str,
    changes: list[str],
    cache: int,
) -> run.Job:
    """Make the job of one stage from the options of its command. Raises TrainingError."""
    chosen = find_preset(preset, PRESETS)
    stage = override(getattr(chosen, kind), [*changes, *([f'cache={cache}'] if cache else [])])
    stages: dict[str, Any] = {kind: stage}
    chosen = dataclasses.replace(chosen, model=model or chosen.model, **stages)
    return run.Job(
        preset=chosen,
        name=preset,
        folder=out,
        frames=[open_frames(text, 'train', label_map) for text in data],
        val_frames=open_frames(val, 'val', label_map) if val else None,
        objects=open_objects(objects) if objects else None,
        command=command_line(),
    )
