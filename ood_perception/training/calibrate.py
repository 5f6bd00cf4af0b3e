# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Calibration: fit the map from score to probability on labelled frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ood_perception.profile import CalibrationConfig, Profile
from ood_perception.training.checkpointing import TrainingError

Array = np.ndarray


def fit(
    scores: Sequence[Array],
    labels: Sequence[Array],
    kind: str = 'platt',
    most: int = 400_000,
    prevalence: float = 0.0,
    seed: int = 0,
) -> tuple[CalibrationConfig, dict[str, float]]:
    """
    Fit a calibration to scores with labels.

    Args:
        scores: float (h, w) each.
        labels: 0 known, 1 unknown, 255 ignored, same shapes.
        kind: 'platt' or 'quantile'.
        most: pixels used, drawn at random.
        prevalence: share of unknown pixels that probabilities refer to (known and unknown pixels
            are drawn in this proportion); 0 = as in the data.
        seed: of the drawing.

    Returns:
        The entry of a profile, and {'ece': expected calibration error, 'brier', 'pixels'}.

    Raises:
        TrainingError: no finite score of one kind, or an unknown `kind`.

    """
    from ood_perception.scores.calibration import Calibration

    if kind not in ('platt', 'quantile'):
        raise TrainingError(f"calibration: expected 'platt' or 'quantile', got {kind!r}")
    score = np.concatenate([np.asarray(s).ravel() for s in scores])
    label = np.concatenate([np.asarray(v).ravel() for v in labels])
    keep = (label <= 1) & np.isfinite(score)
    score, label = score[keep], label[keep]
    rng = np.random.default_rng(seed)
    chosen = _draw(rng, label, most, prevalence)
    score, label = score[chosen], label[chosen]
    try:
        fitted = getattr(Calibration, f'fit_{kind}')(score, label)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    import torch

    probability = fitted(torch.from_numpy(score)).numpy()
    numbers = {
        'ece': expected_calibration_error(probability, label),
        'brier': float(np.mean((probability - label) ** 2)),
        'pixels': float(len(label)),
    }
    return fitted.to_config(), numbers


def _draw(rng: np.random.Generator, label: Array, most: int, prevalence: float) -> Array:
    if not prevalence:
        return rng.permutation(len(label))[:most]
    if not 0 < prevalence < 1:
        raise TrainingError(f'prevalence: expected a share between 0 and 1, got {prevalence}')
    unknown, known = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    total = min(most, int(len(unknown) / prevalence), int(len(known) / (1 - prevalence)))
    n = max(round(total * prevalence), 1)
    return np.concatenate(
        [rng.permutation(unknown)[:n], rng.permutation(known)[: max(total - n, 1)]]
    )


def expected_calibration_error(probability: Array, label: Array, bins: int = 15) -> float:
    """Mean distance between probability and frequency over equally wide bins, weighted."""
    cell = np.clip((probability * bins).astype(int), 0, bins - 1)
    count = np.bincount(cell, minlength=bins)
    hit = np.bincount(cell, label.astype(float), minlength=bins)
    mean = np.bincount(cell, probability.astype(float), minlength=bins)
    filled = count > 0
    return float(np.abs(hit - mean)[filled].sum() / max(count.sum(), 1))


def profile_scores(
    profile: Profile, samples: Any, device: str = 'auto', stride: int = 2
) -> tuple[list[Array], list[Array]]:
    """
    Scores of a whole pipeline on labelled samples.

    Args:
        profile: of the pipeline.
        samples: yields (image uint8 (H, W, 3), label uint8 (H, W) with 254 unknown, 255 void).
        device: see `Pipeline.from_profile`.
        stride: every n-th pixel of every n-th row is kept.

    """
    import dataclasses

    from ood_perception.pipeline import Pipeline
    from ood_perception.profile import StageConfig

    bare = dataclasses.replace(profile, prompts=StageConfig(), mask_model=StageConfig())
    pipeline = Pipeline.from_profile(bare, device)
    scores, labels = [], []
    for image, label in samples:
        (result,) = pipeline(image, streams=['calibration'], wants={'score'})
        pipeline.reset('calibration')
        scores.append(result.score[::stride, ::stride])
        small = label[::stride, ::stride]
        labels.append(np.where(small == 255, 255, small == 254).astype(np.uint8))
    return scores, labels


def write_calibration(path: Path, calibration: CalibrationConfig) -> None:
    """Replace the calibration of a profile file, leaving the rest as it is."""
    import dataclasses

    tree = yaml.safe_load(path.read_text(encoding='utf-8'))
    tree['calibration'] = dataclasses.asdict(calibration)
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding='utf-8')
