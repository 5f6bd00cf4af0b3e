# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The end of a training run: calibration, model card and a profile ready to use."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ood_perception.checkpoints.store import sha256_of
from ood_perception.profile import CalibrationConfig
from ood_perception.training import cards
from ood_perception.training.calibrate import fit
from ood_perception.training.run import Job, build, class_names, make_validation


def finish(
    job: Job,
    weights: Path,
    numbers: dict[str, Any],
    scores: Sequence[np.ndarray] = (),
    labels: Sequence[np.ndarray] = (),
    prevalence: float = 0.0,
    score: str = 'llr',
) -> Path:
    """
    Calibrate, and write the model card and the profile beside the weights.

    Args:
        job: what was done.
        weights: file of the trained model.
        numbers: what was measured.
        scores: of the validation set, for the calibration; none = as the profile's default.
        labels: of the same.
        prevalence: see `calibrate.fit`.
        score: entry of `scores.SCORES` that the profile names.

    Returns:
        Path of the profile.

    """
    calibration = CalibrationConfig()
    if len(scores):
        calibration, quality = fit(scores, labels, prevalence=prevalence)
        numbers = {**numbers, **{f'calibration {k}': v for k, v in quality.items()}}
    licence = cards.licence_text([f.name for f in job.frames if f.noncommercial])
    profile = cards.make_profile(
        job.preset.profile,
        weights.stem,
        job.preset.model,
        job.preset.options,
        weights,
        score,
        calibration,
        class_names(job),
        licence,
    )
    path = weights.with_suffix('.yaml')
    cards.write_profile(path, profile)
    cards.write_card(
        weights.with_suffix('.md'),
        {
            'name': weights.stem,
            'what': f'{job.preset.model}, trained with preset {job.name} ({job.preset.source}).',
            'numbers': numbers,
            'data': job.sources,
            'licence': licence,
            'limits': [
                'Numbers come from the validation set named here, not from a benchmark.',
                'What is unknown is relative to the training frames: another site, camera or '
                'season needs its own frames or calibration.',
            ],
            'command': job.command,
            'sha256': sha256_of(weights),
            'record': {
                kind: getattr(job.preset, kind).to_dict()
                for kind in ('segmentor', 'uem')
                if hasattr(job.preset, kind)
            },
        },
    )
    return path


def finish_uem(job: Job, weights: Path, numbers: dict[str, Any], prevalence: float = 0.0) -> Path:
    """Load the trained UEM, calibrate it on the validation samples, write card and profile."""
    validation = make_validation(job)
    if validation is None:
        return finish(job, weights, numbers)
    parts = build(dataclasses.replace(job, weights=str(weights)))
    with torch.inference_mode():
        scores, labels = validation.scores(parts)
    return finish(job, weights, numbers, scores, labels, prevalence)
