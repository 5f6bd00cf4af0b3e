# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration: fit the map from score to probability on labelled frames."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ood_evaluation.calibration_metrics import CalibrationMetrics
from ood_perception.labels import truth_of
from ood_perception.pipeline import Pipeline
from ood_perception.profile import CalibrationConfig, Profile, StageConfig
from ood_training.checkpointing import TrainingError
from ood_training.fits import fit_platt, fit_quantile

Array = np.ndarray

FITS = {'platt': fit_platt, 'quantile': fit_quantile}

PIXELS = 400_000
"""Most pixels that a calibration is fitted to."""

STRIDE = 2
"""Every n-th pixel of every n-th row is kept of a frame."""

BLOCK = re.compile(r'^calibration:.*\n(?:[ \t]+.*\n|[ \t]*\n(?=[ \t]))*', re.MULTILINE)
"""The calibration of a profile file with the lines that belong to it."""


def fit(
    scores: Sequence[Array],
    labels: Sequence[Array],
    kind: str = 'platt',
    prevalence: float = 0.0,
) -> tuple[CalibrationConfig, dict[str, float]]:
    """
    Fit a calibration to scores with labels.

    Args:
        scores: float (h, w) each.
        labels: 0 known, 1 unknown, 255 ignored, same shapes.
        kind: 'platt' or 'quantile'.
        prevalence: share of unknown pixels that probabilities refer to (known and unknown pixels
            are drawn in this proportion); 0 = as in the data.

    Returns:
        The entry of a profile, and {'ece': expected calibration error, 'brier', 'pixels'}.

    Raises:
        TrainingError: no finite score of one kind, an unknown `kind`, or a score that does not
            rise from known to unknown pixels.
    """
    if kind not in FITS:
        raise TrainingError(f"calibration: expected 'platt' or 'quantile', got {kind!r}")
    score = np.concatenate([np.asarray(s).ravel() for s in scores])
    label = np.concatenate([np.asarray(v).ravel() for v in labels])
    keep = (label <= 1) & np.isfinite(score)
    score, label = score[keep], label[keep]
    chosen = _draw(label, prevalence)
    score, label = score[chosen], label[chosen]
    try:
        fitted = FITS[kind](score, label)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    if fitted.slope <= 0:
        raise TrainingError(
            'calibration: the score of unknown pixels is not above that of known ones (slope '
            f'{fitted.slope:.3g}); are the labels those of these frames, and is --label-map right?'
        )
    probability = fitted(torch.from_numpy(score)).numpy()
    metrics = CalibrationMetrics()
    metrics.update(probability, label)
    measured = metrics.compute()
    numbers = {'ece': measured['ece'], 'brier': measured['brier'], 'pixels': float(len(label))}
    return fitted.to_config(), numbers


def _draw(label: Array, prevalence: float) -> Array:
    """Indices of the pixels that are used, at most `PIXELS`."""
    rng = np.random.default_rng(0)
    if not prevalence:
        return rng.permutation(len(label))[:PIXELS]
    if not 0 < prevalence < 1:
        raise TrainingError(f'prevalence: expected a share between 0 and 1, got {prevalence}')
    unknown, known = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    total = min(PIXELS, int(len(unknown) / prevalence), int(len(known) / (1 - prevalence)))
    n = max(round(total * prevalence), 1)
    parts = rng.permutation(unknown)[:n], rng.permutation(known)[: max(total - n, 1)]
    return np.concatenate(parts)


def profile_scores(
    profile: Profile, samples: Any, device: str = 'auto'
) -> tuple[list[Array], list[Array]]:
    """
    Scores of a whole pipeline on labelled samples.

    Args:
        samples: yields (image uint8 (H, W, 3), label uint8 (H, W) with 254 unknown, 255 void).
    """
    bare = dataclasses.replace(profile, prompts=StageConfig(), mask_model=StageConfig())
    pipeline = Pipeline.from_profile(bare, device)
    scores, labels = [], []
    for image, label in samples:
        (result,) = pipeline(image, streams=['calibration'], wants={'score'})
        pipeline.reset('calibration')
        scores.append(result.score[::STRIDE, ::STRIDE])
        labels.append(truth_of(label[::STRIDE, ::STRIDE]).astype(np.uint8))
    return scores, labels


def write_calibration(source: Path, target: Path, calibration: CalibrationConfig) -> None:
    """
    Write a profile anew with another calibration; all other lines, comments too, stay.

    Args:
        source: profile file to start from; may be `target`.
        target: file to write.
        calibration: replaces that of the profile.

    Raises:
        TrainingError: a file that cannot be read or written, or that then is no profile.
    """
    block = yaml.safe_dump({'calibration': dataclasses.asdict(calibration)}, sort_keys=False)
    try:
        text = source.read_text(encoding='utf-8').rstrip('\n') + '\n'
        # A block ends where the next key begins; in flow style it is one line.
        replaced, count = BLOCK.subn(lambda _: block, text, count=1)
        if not count:
            replaced = f'{text.rstrip()}\n{block}'
        tree = yaml.safe_load(replaced)
        if Profile.from_dict(tree).calibration != calibration:
            raise TrainingError(f'{source}: its calibration cannot be replaced; write it by hand')
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(replaced, encoding='utf-8')
    except (OSError, yaml.YAMLError) as error:
        raise TrainingError(f'{target}: cannot be written: {error}') from error
