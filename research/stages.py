# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Both stages of the papers and of the compact network, with what makes them fast on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ood_training import run
from ood_training.checkpointing import TrainingError
from ood_training.data import TrainingSet
from ood_training.parts import Parts, normalise
from ood_training.sources import fingerprint
from ood_training.uem import StageTask, Validate
from research.cache import FeatureCache
from research.fast_features import fast_features
from research.frozen import FrozenFeatures
from research.gmm import GmmSettings
from research.paper_uem import PaperUemTask
from research.presets import PaperStage
from research.recipes import RECIPES
from research.segmentor import ClassValidation, SegmentorTask


def run_stage(
    job: run.Job,
    kind: str,
    samples: Dataset | None = None,
    validation: Validate | None = None,
) -> tuple[Path, dict[str, float]]:
    """
    Train one stage and write its files to `job.folder/kind`.

    Args:
        job: what to do; its preset is a `presets.PaperPreset`.
        kind: 'segmentor' or 'uem'.
        samples: replace those of the job's frames, which are checked then by the caller.
        validation: replaces that of the job's frames.

    Returns:
        The weights' path (safetensors), and the validation numbers.

    Raises:
        TrainingError: whatever is wrong with data, model or disk, naming the file.

    """
    if samples is None:
        check_frames(job, kind)
    stage: PaperStage = run.begin(job, kind)
    parts = run.build(job)
    if samples is None:
        recipe = run.make_recipe(stage.recipe, job.objects, RECIPES, **stage.options)
        samples = TrainingSet(list(job.frames), recipe, stage.trainer.seed)
    samples, threads = _fast(job, kind, stage, parts, samples)
    if validation is None and job.val_frames is not None:
        validation = _validation(job, kind)
    task = make_task(kind, parts, stage, validation)
    with _torch_threads(threads):
        return run.fit(job, kind, parts, task, samples)


def check_frames(job: run.Job, kind: str) -> None:
    """Find what is wrong with the data before training starts. Raises TrainingError."""
    if kind == 'segmentor':
        names = {tuple(frames.label_map.classes) for frames in job.frames}
        if len(names) > 1:
            raise TrainingError(f'the training frames have different classes: {sorted(names)}')
        for frames in [*job.frames, *([job.val_frames] if job.val_frames else [])]:
            if any(label is None for label in frames.labels):
                raise TrainingError(f'{frames.name}: has no labels, which a segmentor needs')
    run.check_data(job)


def make_task(
    kind: str, parts: Parts, stage: PaperStage, validation: Validate | None = None
) -> StageTask:
    """Make the task of a stage."""
    if kind == 'segmentor':
        gmm = GmmSettings(update_interval=stage.update_interval)
        return SegmentorTask(parts, validation, gmm, stage.label_stride)
    return PaperUemTask(parts, stage, validation)


def _validation(job: run.Job, kind: str) -> Validate | None:
    if kind == 'uem':
        return run.make_validation(job)
    assert job.val_frames is not None
    recipe = run.make_recipe('plain', multiple=run.side_multiple(job))
    return ClassValidation(TrainingSet(job.val_frames, recipe))


def _fast(
    job: run.Job, kind: str, stage: PaperStage, parts: Parts, samples: Dataset
) -> tuple[Dataset, int]:
    """Samples that carry frozen features where a CPU is faster so, and the threads of torch."""
    threads, workers = torch.get_num_threads(), stage.trainer.workers
    if job.preset.model == 'compact' and stage.trainer.accelerator == 'cpu':
        if workers and not stage.cache:
            # with `paper` the class logits drift, so they are not frozen
            samples = FrozenFeatures(samples, parts, kind == 'uem' and not stage.paper)
            threads = max(1, threads - workers)
        else:
            example = normalise(samples[(0, 0)]['image'][None], parts.spec)
            with torch.inference_mode():
                parts.features = fast_features(parts.backbone, example)
    if stage.cache:
        samples = FeatureCache(
            job.folder / kind / 'cache',
            samples,
            parts,
            stage.cache,
            stage.trainer.seed,
            f'{job.name} {stage.recipe} {stage.options} {[fingerprint(f) for f in job.frames]}',
            workers=workers,
        )
    return samples, threads


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
