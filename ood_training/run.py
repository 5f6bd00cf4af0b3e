# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""One run from data to weights: checks, model, samples, training."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from ood_training.checkpointing import TrainingError, write_weights
from ood_training.data import Frames, Objects, TrainingSet
from ood_training.parts import Parts, split
from ood_training.presets import Preset
from ood_training.recipes import make_recipe
from ood_training.settings import Task
from ood_training.sources import fingerprint
from ood_training.trainer import Trainer
from ood_training.uem import UemTask, Validation

log = logging.getLogger(__name__)

CLASS_KEYS = (
    'fpn.head.weight',
    'segmentor.segmentation_head._head.weight',
    'segmentor.segmentation_head.means',
    'decode_head.conv_seg.weight',
)
"""Tensors whose first axis is the number of known classes."""


@dataclass
class Job:
    """What a training command was asked for."""

    preset: Preset  # the recipe, with all changes made
    name: str  # of the preset
    folder: Path  # of the run; stages get a folder each
    frames: Sequence[Frames] = ()  # training frames, mixed in proportion to their numbers
    val_frames: Frames | None = None  # validation frames, None = no validation
    objects: Objects | None = None  # unknown objects to paste in training
    # unknown objects to paste into validation frames without unknown pixels
    val_objects: Objects | None = None
    weights: str = ''  # reference of weights to start from ('' = random heads)
    backbone: str = ''  # reference of the frozen backbone's own weights
    command: str = ''  # the command line, for the card

    @property
    def classes(self) -> list[str]:
        """Names of the known classes."""
        return self.frames[0].label_map.classes if self.frames else []

    @property
    def sources(self) -> list[dict[str, Any]]:
        """What the model card says of the data."""
        roles = [('training', frames) for frames in self.frames]
        roles += [('validation', self.val_frames)] if self.val_frames else []
        found: list[dict[str, Any]] = [
            {
                'role': role,
                'from': frames.name,
                'images': len(frames),
                'label map': frames.label_map.name,
                'fingerprint': fingerprint(frames),
                'non-commercial': frames.noncommercial,
            }
            for role, frames in roles
        ]
        if self.objects is not None:
            found.append({'role': 'unknown objects', 'from': self.objects.name})
        return found


def train_uem(job: Job) -> tuple[Path, dict[str, float]]:
    """
    Train the UEM of a job and write its files to `job.folder/uem`.

    Returns:
        The weights' path (safetensors), and the validation numbers.

    Raises:
        TrainingError: whatever is wrong with data, model or disk, naming the file.
    """
    check_data(job)
    stage = begin(job, 'uem')
    parts = build(job)
    recipe = make_recipe(stage.recipe, job.objects, **stage.options)
    dataset = TrainingSet(list(job.frames), recipe, stage.trainer.seed)
    return fit(job, 'uem', parts, UemTask(parts, stage, make_validation(job)), dataset)


def begin(job: Job, kind: str) -> Any:
    """
    Decide what a stage leaves to the machine, in the job's preset too, and seed all chance.

    Returns:
        The stage of that kind, a `presets.Stage` or what the preset has of it.
    """
    stage = getattr(job.preset, kind)
    stage = dataclasses.replace(stage, trainer=stage.trainer.for_this_machine())
    job.preset = dataclasses.replace(job.preset, **{kind: stage})  # type: ignore[arg-type]
    # What the stage neither loads nor trains is random: the same in every process of a run.
    torch.manual_seed(stage.trainer.seed)
    return stage


def fit(
    job: Job, kind: str, parts: Parts, task: Task, dataset: Dataset
) -> tuple[Path, dict[str, float]]:
    """Train a task in the folder `job.folder/kind`; see :func:`train_uem`."""
    stage, folder = getattr(job.preset, kind), job.folder / kind
    record = {
        'preset': job.name,
        'model': job.preset.model,
        'options': dict(job.preset.options),
        'stage': kind,
        'settings': dataclasses.asdict(stage),
        'data': [f'{f.name} {len(f)} {fingerprint(f)}' for f in job.frames],
        'command': job.command,
    }
    trainer = Trainer(task, dataset, stage.trainer, folder, record)
    numbers = trainer.fit()
    path = folder / 'weights.safetensors'
    if trainer.fabric.is_global_zero:
        # Without the parts that a file may lack (a packaged backbone).
        optional = tuple(getattr(parts.model, 'optional_keys', ()))
        state = parts.model.state_dict()
        write_weights(path, {k: v for k, v in state.items() if not k.startswith(optional)})
        log.info('%s: %s', path, numbers)
    trainer.fabric.barrier()
    return path, numbers


def check_data(job: Job) -> None:
    """Find what is wrong with the data before training starts. Raises TrainingError."""
    if not job.frames:
        raise TrainingError('no training frames: give --data')
    for frames in [*job.frames, *([job.val_frames] if job.val_frames else [])]:
        frames.check()
    for objects in (job.objects, job.val_objects):
        if objects is not None and hasattr(objects, 'check'):
            objects.check()


def build(job: Job) -> Parts:
    """Make the model of a job and load what it starts from. Raises TrainingError."""
    from ood_perception.checkpoints import load_checkpoint, read_checkpoint, resolve
    from ood_perception.models.registry import create_model

    options = dict(job.preset.options)
    try:
        state = read_checkpoint(resolve(job.weights)) if job.weights else {}
        key = 'classes' if job.preset.model == 'compact' else 'num_classes'
        count = next((len(state[k]) for k in CLASS_KEYS if k in state), len(job.classes))
        if count and key not in options and not job.preset.model.startswith('dinov2'):
            options[key] = count
        job.preset = dataclasses.replace(job.preset, options=options)
        parts = split(create_model(job.preset.model, **options))
        if job.backbone:
            log.info('%s', load_checkpoint(parts.backbone, resolve(job.backbone)))
        if state:
            own = parts.model.state_dict()
            wrong = [k for k, v in state.items() if k not in own or own[k].shape != v.shape]
            if wrong:
                log.info('%s', load_checkpoint(parts.model, state))
            else:  # weights of this project may hold some of the parts only
                parts.model.load_state_dict(state, strict=False)
    except (OSError, ValueError, ImportError) as error:
        raise TrainingError(str(error)) from error
    return parts


def class_names(job: Job) -> list[str]:
    """Names of the model's classes: the frames', else those of a profile with these weights."""
    from ood_perception.profile import Profile, ProfileError, profile_names

    count = job.preset.options.get('classes', job.preset.options.get('num_classes'))
    if count == len(job.classes):
        return job.classes
    beside = Path(job.weights).with_suffix('.yaml').absolute()
    for name in (str(beside), *profile_names()):
        try:
            profile = Profile.load(name)
        except ProfileError:
            continue
        used = name == str(beside) or profile.segmentor.weights == job.weights
        if used and len(profile.classes) == count:
            return profile.classes
    return []


def make_validation(job: Job) -> Validation | None:
    """Validation samples; objects are pasted where no label is unknown."""
    if job.val_frames is None:
        return None
    name = 'plain' if job.val_frames.has_unknown() else 'paste_only'
    recipe = make_recipe(name, job.val_objects, multiple=side_multiple(job))
    samples = TrainingSet(job.val_frames, recipe, seed=7)
    return Validation(samples, exact=job.preset.uem.exact)


def side_multiple(job: Job) -> int:
    """Pixels that image sides must be a multiple of, for the job's model."""
    from ood_perception.models.dinov2 import PATCH

    return PATCH if job.preset.model.startswith(('uem', 'dinov2')) else 1
