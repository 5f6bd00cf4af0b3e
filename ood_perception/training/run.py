# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""One stage from data to weights: checks, model, samples, training; see finishing for the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from ood_perception.training import cards
from ood_perception.training.cache import FeatureCache
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.data import Frames, TrainingSet
from ood_perception.training.engine import Trainer
from ood_perception.training.fast_features import fast_features
from ood_perception.training.frozen import FrozenFeatures
from ood_perception.training.gmm import GmmSettings
from ood_perception.training.objects import Objects
from ood_perception.training.parts import Parts, normalise, split
from ood_perception.training.presets import Preset, Stage
from ood_perception.training.recipes import make_recipe
from ood_perception.training.segmentor import SegmentorTask, StageTask
from ood_perception.training.sources import fingerprint
from ood_perception.training.uem import UemTask
from ood_perception.training.validation import Validation

log = logging.getLogger(__name__)


@dataclass
class Job:
    """
    What `ood train segmentor` and `ood train uem` were asked for.

    Attributes:
        preset: the recipe, with all changes made.
        name: of the preset.
        folder: of the run; stages get a folder each.
        frames: training frames, mixed in proportion to their numbers.
        val_frames: validation frames, None = no validation.
        objects: unknown objects to paste in training.
        val_objects: unknown objects to paste into validation frames without unknown pixels.
        weights: reference of weights to start from ('' = random heads).
        backbone: reference of the frozen backbone's own weights.
        command: the command line, for the card.
        train_set: replaces frames and recipe by samples of its own making.
        val_set: replaces the validation frames and their pasting.

    """

    preset: Preset
    name: str
    folder: Path
    frames: Sequence[Frames] = ()
    val_frames: Frames | None = None
    objects: Objects | None = None
    val_objects: Objects | None = None
    weights: str = ''
    backbone: str = ''
    command: str = ''
    train_set: Dataset | None = None
    val_set: Dataset | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """Names of the known classes."""
        return self.frames[0].label_map.classes if self.frames else []


def run_stage(job: Job, kind: str, check: bool = True) -> tuple[Path, dict[str, float]]:
    """
    Train one stage and write its files to `job.folder/kind`.

    Args:
        job: what to do.
        kind: 'segmentor' or 'uem'.
        check: read the data once before training starts.

    Returns:
        The weights' path (safetensors), and the validation numbers.

    Raises:
        TrainingError: whatever is wrong with data, model or disk, naming the file.

    """
    stage: Stage = getattr(job.preset, kind)
    stage = dataclasses.replace(stage, engine=stage.engine.for_this_machine())
    used: dict[str, Any] = {kind: stage}
    job.preset = dataclasses.replace(job.preset, **used)  # the card says what was used
    if check:
        check_data(job, kind)
    # What the stage neither loads nor trains is random: the same in every process of a run.
    torch.manual_seed(stage.engine.seed)
    parts = build(job)
    dataset = job.train_set or TrainingSet(
        list(job.frames),
        make_recipe(stage.recipe, job.objects, **stage.options),
        stage.engine.seed,
    )
    folder = job.folder / kind
    threads = torch.get_num_threads()
    if job.preset.model == 'compact' and stage.engine.accelerator == 'cpu':
        if stage.engine.workers and not stage.cache:
            # with `paper` the class logits drift, so they are not frozen
            frozen_logits = kind == 'uem' and not stage.paper
            dataset = FrozenFeatures(dataset, parts, frozen_logits)
            threads = max(1, threads - stage.engine.workers)
        elif parts.backbone is not None:
            example = normalise(dataset[(0, 0)]['image'][None], parts.spec)
            with torch.inference_mode():
                parts.features = fast_features(parts.backbone, example)
    if stage.cache:
        dataset = FeatureCache(
            folder / 'cache',
            dataset,
            parts,
            stage.cache,
            stage.engine.seed,
            f'{job.name} {stage.recipe} {stage.options} {[fingerprint(f) for f in job.frames]}',
            workers=stage.engine.workers,
        )
    validation = make_validation(job, kind)
    task = make_task(kind, parts, stage, validation)
    trainer = Trainer(task, dataset, stage.engine, folder, _record(job, kind, stage))
    with _torch_threads(threads):
        numbers = trainer.fit()
    path = folder / 'weights.safetensors'
    if trainer.fabric.is_global_zero:
        save_weights(path, parts)
        log.info('%s: %s', path, numbers)
    trainer.fabric.barrier()
    return path, numbers


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_data(job: Job, kind: str) -> None:
    """Find what is wrong with the data before training starts. Raises TrainingError."""
    if job.train_set is None and not job.frames:
        raise TrainingError('no training frames: give --data')
    names = {tuple(frames.label_map.classes) for frames in job.frames}
    if len(names) > 1 and kind == 'segmentor':
        raise TrainingError(f'the training frames have different classes: {sorted(names)}')
    for frames in [*job.frames, *([job.val_frames] if job.val_frames else [])]:
        if kind == 'segmentor' and any(label is None for label in frames.labels):
            raise TrainingError(f'{frames.name}: has no labels, which a segmentor needs')
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
        count = _class_count(state) or len(job.classes)
        if count and key not in options and not job.preset.model.startswith('dinov2'):
            options[key] = count
        job.preset = dataclasses.replace(job.preset, options=options)
        parts = split(create_model(job.preset.model, **options))
        if job.backbone:
            if parts.backbone is None:
                raise TrainingError(f'{job.preset.model}: its backbone needs no --backbone')
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


CLASS_KEYS = (
    'fpn.head.weight',
    'segmentor.segmentation_head._head.weight',
    'segmentor.segmentation_head.means',
    'decode_head.conv_seg.weight',
)
"""Tensors whose first axis is the number of known classes."""


def _class_count(state: dict[str, Any]) -> int:
    """Number of known classes in a checkpoint; 0 where it cannot be told."""
    return next((len(state[key]) for key in CLASS_KEYS if key in state), 0)


def class_names(job: Job) -> list[str]:
    """Names of the model's classes: the frames', else those of the profile beside the weights."""
    from ood_perception.profile import Profile, ProfileError

    count = job.preset.options.get('classes', job.preset.options.get('num_classes'))
    if count == len(job.classes):
        return job.classes
    try:
        beside = Profile.load(str(Path(job.weights).with_suffix('.yaml').absolute()))
    except ProfileError:
        return []
    return beside.classes if len(beside.classes) == count else []


def make_task(
    kind: str, parts: Parts, stage: Stage, validation: Validation | None = None
) -> StageTask:
    """Make the task of a stage."""
    gmm = GmmSettings(update_interval=stage.update_interval)
    if kind == 'segmentor':
        return SegmentorTask(parts, validation, gmm, stage.label_stride)
    return UemTask(
        parts,
        validation,
        stage.alpha,
        stage.unknown_weight,
        stage.paper,
        gmm,
        stage.label_stride,
        stage.object_area,
        stage.object_least,
        stage.exact,
    )


def make_validation(job: Job, kind: str) -> Validation | None:
    """Validation samples; for a UEM, objects are pasted where no label is unknown."""
    if job.val_set is not None:
        return Validation(job.val_set, kind)
    if job.val_frames is None:
        return None
    multiple = split_multiple(job)
    recipe = make_recipe('plain', multiple=multiple)
    if kind == 'uem' and not _has_unknown(job.val_frames):
        if job.val_objects is None:
            raise TrainingError(
                f'{job.val_frames.name}: no pixel is unknown (label 254), so AP cannot be '
                f'measured: give --val-objects to paste, or leave out --val'
            )
        # The published paste, once a frame, then padded.
        paste = make_recipe(
            'uem_mix',
            job.val_objects,
            probability=1.0,
            scale=[1.0, 1.0],
            jitter=0.0,
            **_whole(job.val_frames, multiple),
        )
        return Validation(TrainingSet(job.val_frames, paste, seed=7), kind)
    return Validation(TrainingSet(job.val_frames, recipe), kind)


def save_weights(path: Path, parts: Parts) -> str:
    """Write the model's state, without the parts that a file may lack (a packaged backbone)."""
    optional = tuple(getattr(parts.model, 'optional_keys', ()))
    state = parts.model.state_dict()
    kept = {k: v for k, v in state.items() if not (optional and k.startswith(optional))}
    return cards.write_weights(path, kept)


def describe(frames: Frames, role: str) -> dict[str, Any]:
    """One line of the model card on a set of frames."""
    return {
        'role': role,
        'from': frames.name,
        'images': len(frames),
        'label map': frames.label_map.name,
        'fingerprint': fingerprint(frames),
        'non-commercial': frames.noncommercial,
    }


def split_multiple(job: Job) -> int:
    """Pixels that image sides must be a multiple of, for the job's model."""
    from ood_perception.models.dinov2 import PATCH

    return PATCH if job.preset.model.startswith(('uem', 'dinov2')) else 1


def _has_unknown(frames: Frames) -> bool:
    """Whether any label of the frames holds an unknown pixel."""
    if not frames.has_unknown() or all(label is None for label in frames.labels):
        return False
    return any((frames.load(i)[1] == 254).any() for i in range(len(frames)))


def _whole(frames: Frames, multiple: int) -> dict[str, list[int]]:
    image, _ = frames.load(0)
    size = [-(-side // multiple) * multiple for side in image.shape[:2]]
    return {'crop': size, 'pad': size}


def _record(job: Job, kind: str, stage: Stage) -> dict[str, Any]:
    return {
        'preset': job.name,
        'model': job.preset.model,
        'options': dict(job.preset.options),
        'stage': kind,
        'settings': stage.to_dict(),
        'data': [f'{f.name} {len(f)} {fingerprint(f)}' for f in job.frames],
        'command': job.command,
    }
