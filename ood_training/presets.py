# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Presets: every hyper-parameter of a recipe under one name, each can be overridden."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from ood_training.checkpointing import TrainingError
from ood_training.settings import TrainSettings


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe."""

    # steps, optimiser, schedule, precision
    trainer: TrainSettings = field(default_factory=TrainSettings)
    recipe: str = 'paste'  # entry of `recipes.RECIPES`: augmentation and outlier exposure
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the recipe
    unknown_weight: float = 1.0  # weight of unknown pixels
    object_area: float = 0.0  # pixels; smaller unknown objects weigh more, 0 = no
    exact: bool = True  # see `uem.UemTask`


@dataclass(frozen=True)
class Preset:
    """A recipe from images to a profile."""

    model: str  # entry of `models.SEGMENTORS`
    # keyword arguments of the model; the number of classes follows the weights
    options: dict[str, Any] = field(default_factory=dict)
    weights: str = ''  # reference of the weights to start from, where the user names none
    uem: Stage = field(default_factory=Stage)  # training of the UEM
    # keys of the profile that the run writes (image size, prompts, mask model)
    profile: dict[str, Any] = field(default_factory=dict)
    source: str = ''  # paper, section or page the numbers come from


COMPACT_PROFILE: dict[str, Any] = {
    'image': {'short_side': 432, 'max_long_side': 768},
    'score': {'name': 'llr', 'options': {'exact': False}, 'memory': {'seconds': 0.06}},
    'prompts': {'name': 'score_detector'},
    'mask_model': {'name': 'compact'},
    'precision': 'float16',
}
"""Keys of a profile of the compact network."""

DINOV2_PROFILE: dict[str, Any] = {
    'prompts': {'name': 'components'},
    'mask_model': {
        'name': 'sam_vit_b',
        'weights': 'sam_vit_b',
        'options': {'precision': 'bfloat16'},
    },
    'precision': 'float16',
}
"""Keys of a profile of a DINOv2 network."""

PRESETS: dict[str, Preset] = {
    'compact': Preset(
        model='compact',
        weights='package:compact.safetensors',
        uem=Stage(
            TrainSettings(
                steps=1500,
                batch_size=8,
                lr=1e-3,
                lr_end=1e-6,
                weight_decay=1e-3,
                schedule='one_cycle',
                warmup_steps=100,
                warmup_factor=0.04,
                ema=0.998,
                clip_norm=5.0,
                seed=2,
                workers=1,
                checkpoint_every=100,
                accelerator='cpu',
                precision='auto',
            ),
            options={'size': [360, 480]},
            unknown_weight=3.0,
            object_area=500.0,
            exact=False,
        ),
        profile=COMPACT_PROFILE,
        source='this project',
    ),
    'dinov2': Preset(
        model='uem_gd',
        uem=Stage(
            TrainSettings(
                steps=4000,
                lr=5e-4,
                lr_end=1e-7,
                schedule='linear',
                warmup_steps=1500,
                precision='bf16-mixed',
                workers=4,
                checkpoint_every=500,
                monitor='ap',
                validate_every=500,
            ),
            options={'size': [518, 1036]},
        ),
        profile=DINOV2_PROFILE,
        source='Nayal et al., IJCV 2025, and its code; objects pasted as for compact',
    ),
}
"""Name -> preset."""

P = TypeVar('P', bound=Preset)
S = TypeVar('S', bound=Stage)


def find_preset(name: str, presets: dict[str, P] = PRESETS) -> P:  # type: ignore[assignment]
    """Return a preset by name. Raises TrainingError naming those there are."""
    if name not in presets:
        raise TrainingError(f'no preset named {name!r}; there are: {", ".join(presets)}')
    return presets[name]


def override(stage: S, changes: list[str]) -> S:
    """
    Apply `key=value` changes to a stage.

    Args:
        changes: `lr=1e-3`, `steps=100`, `exact=false`, `options.probability=0.3`; values are YAML.

    Raises:
        TrainingError: unknown key or wrong type, naming it.
    """
    trainer_keys = {f.name for f in dataclasses.fields(stage.trainer)}
    stage_keys = {f.name for f in dataclasses.fields(stage)} - {'trainer', 'options'}
    for change in changes:
        key, equals, text = change.partition('=')
        value = yaml.safe_load(text) if equals else None
        if not equals or value is None:
            raise TrainingError(f'--set {change}: expected key=value')
        new: dict[str, Any]
        if key.startswith('options.'):
            new = {'options': {**stage.options, key.removeprefix('options.'): value}}
        elif key in trainer_keys:
            typed = _typed(change, getattr(stage.trainer, key), value)
            new = {'trainer': dataclasses.replace(stage.trainer, **{key: typed})}
        elif key in stage_keys:
            new = {key: _typed(change, getattr(stage, key), value)}
        else:
            known = sorted(trainer_keys | stage_keys)
            close = difflib.get_close_matches(key, known, n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'known: {", ".join(known)}'
            raise TrainingError(f'--set {change}: unknown key; {hint}')
        stage = dataclasses.replace(stage, **new)
    stage.trainer.check()
    return stage


def _typed(change: str, old: Any, value: Any) -> Any:
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(old, float) and not isinstance(value, bool):
        with contextlib.suppress(TypeError, ValueError):
            return float(value)  # YAML reads 1e-3 as text: it wants 1.0e-3
    if type(value) is not type(old):
        raise TrainingError(f'--set {change}: expected {type(old).__name__}, got {value!r}')
    return value
