# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Presets: every hyper-parameter of a recipe under one name, each of which can be overridden.

The numbers of `uem_*` and `s2m` are those of the published code (where paper and code differ, the
code's): AdamW 5e-4, 1,500 steps of warm-up, linear to 1e-7, batch 4 a GPU, and so on.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from typing import Any

import yaml

from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.settings import EngineSettings


@dataclass(frozen=True)
class Stage:
    """
    One stage of a recipe.

    Attributes:
        engine: steps, optimiser, schedule, precision.
        recipe: entry of `recipes.RECIPES`: augmentation and outlier exposure.
        options: keyword arguments of the recipe.
        alpha: weight of the cross entropy over the UEM's outputs.
        unknown_weight: weight of unknown pixels.
        object_area: pixels; smaller unknown objects weigh more, 0 = no.
        object_least: pixels; unknown objects of fewer are void, 0 = none is.
        label_stride: the loss sees every n-th row and column.
        exact: of stage 2, see `uem.UemTask`.
        update_interval: steps between updates of a GMM head's statistics.
        paper: reproduce the official BatchNorm drift of stage 2.
        cache: samples whose frozen features are kept on disk, 0 = compute them every time.

    """

    engine: EngineSettings = field(default_factory=EngineSettings)
    recipe: str = 'uem'
    options: dict[str, Any] = field(default_factory=dict)
    alpha: float = 0.0
    unknown_weight: float = 1.0
    object_area: float = 0.0
    object_least: int = 0
    label_stride: int = 1
    exact: bool = True
    update_interval: int = 5
    paper: bool = False
    cache: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        return {**dataclasses.asdict(self), 'engine': self.engine.to_dict()}


@dataclass(frozen=True)
class Preset:
    """
    A recipe from images to a profile.

    Attributes:
        model: entry of `models.SEGMENTORS`.
        options: keyword arguments of the model; `num_classes` follows the label map.
        segmentor: stage 1.
        uem: stage 2.
        prompts: training of the prompt generator.
        profile: keys of the profile that the run writes (image size, prompts, mask model).
        source: paper, section or page the numbers come from.

    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    segmentor: Stage = field(default_factory=Stage)
    uem: Stage = field(default_factory=Stage)
    prompts: Stage = field(default_factory=Stage)
    profile: dict[str, Any] = field(default_factory=dict)
    source: str = ''


UEM_STAGE_1 = EngineSettings(
    steps=90_000,
    batch_size=4,
    optimizer='adamw',
    lr=5e-4,
    lr_end=1e-7,
    weight_decay=0.0,
    schedule='linear',
    warmup_steps=1500,
    precision='16-mixed',
    seed=2000,
    workers=4,
    checkpoint_every=2000,
    validate_every=2000,
    monitor='miou',
)
UEM_STAGE_2 = dataclasses.replace(
    UEM_STAGE_1,
    steps=4000,
    precision='bf16-mixed',
    checkpoint_every=500,
    validate_every=500,
    monitor='ap',
)
S2M_PROMPTS = EngineSettings(
    steps=148_300,
    batch_size=4,
    optimizer='sgd',
    lr=0.0025,
    momentum=0.9,
    weight_decay=1e-4,
    schedule='step',
    warmup_steps=1000,
    warmup_factor=0.001,
    milestones=(60_000, 80_000),
    precision='32-true',
    workers=4,
    checkpoint_every=7145,
)


def _uem(form: str) -> Preset:
    return Preset(
        model=f'uem_{form}',
        segmentor=Stage(UEM_STAGE_1, 'uem', update_interval=5),
        uem=Stage(
            UEM_STAGE_2,
            'uem_mix',
            {'probability': 0.2},
            alpha=0.5 if form == 'gg' else 0.0,
            update_interval=3,
        ),
        prompts=Stage(S2M_PROMPTS, 'rpl'),
        profile={
            'prompts': {'name': 'components'},
            'mask_model': {'name': 'sam_vit_b', 'weights': 'sam_vit_b'},
        },
        source='Nayal et al., IJCV 2025, and its code',
    )


COMPACT_STAGE_1 = EngineSettings(
    steps=800,
    batch_size=8,
    lr=2e-3,
    lr_end=8e-9,
    weight_decay=1e-4,
    schedule='one_cycle',
    warmup_steps=100,
    warmup_factor=0.04,
    seed=1,
    workers=1,
    checkpoint_every=200,
    accelerator='cpu',
    precision='auto',
)
COMPACT_STAGE_2 = dataclasses.replace(
    COMPACT_STAGE_1,
    steps=7800,
    optimizer='muon',
    lr=5e-3,
    weight_decay=1e-3,
    warmup_steps=250,
    ema=0.998,
    clip_norm=5.0,
    seed=2,
    validate_every=3900,
)

PRESETS: dict[str, Preset] = {
    'uem_gd': _uem('gd'),
    'uem_dd': _uem('dd'),
    'uem_gg': _uem('gg'),
    's2m': Preset(
        model='uem_gd',
        prompts=Stage(S2M_PROMPTS, 'rpl', {'crop': 700}),
        source='Zhao et al., CVPR 2024, and its code; learning rate as on its command line',
    ),
    'compact': Preset(
        model='compact',
        segmentor=Stage(COMPACT_STAGE_1, 'exposure.known', label_stride=4),
        uem=Stage(
            COMPACT_STAGE_2,
            'exposure.outlier',
            alpha=0.0,
            unknown_weight=3.0,
            object_area=500.0,
            exact=False,
        ),
        profile={
            'image': {'short_side': 432, 'max_long_side': 768},
            'score': {'name': 'llr', 'options': {'exact': False}},
            'prompts': {'name': 'score_detector'},
            'mask_model': {'name': 'compact'},
        },
        source='this project',
    ),
}
"""Name -> preset."""


def find_preset(name: str) -> Preset:
    """Return a preset by name. Raises TrainingError naming those there are."""
    if name not in PRESETS:
        raise TrainingError(f'no preset named {name!r}; there are: {", ".join(PRESETS)}')
    return PRESETS[name]


def override(stage: Stage, changes: list[str]) -> Stage:
    """
    Apply `key=value` changes to a stage.

    Args:
        stage: to start from; not changed.
        changes: `lr=1e-3`, `steps=100`, `alpha=0.5`, `options.probability=0.3`; values are YAML.

    Raises:
        TrainingError: unknown key or wrong type, naming it.

    """
    engine_keys = {f.name for f in dataclasses.fields(EngineSettings)}
    stage_keys = {f.name for f in dataclasses.fields(Stage)} - {'engine', 'options'}
    for change in changes:
        key, equals, text = change.partition('=')
        value = yaml.safe_load(text) if equals else None
        if not equals or value is None:
            raise TrainingError(f'--set {change}: expected key=value')
        if key.startswith('options.'):
            options = {**stage.options, key.removeprefix('options.'): value}
            stage = dataclasses.replace(stage, options=options)
        elif key in engine_keys:
            typed = _typed(change, getattr(stage.engine, key), value)
            stage = dataclasses.replace(
                stage, engine=dataclasses.replace(stage.engine, **{key: typed})
            )
        elif key in stage_keys:
            typed = _typed(change, getattr(stage, key), value)
            stage = dataclasses.replace(stage, **{key: typed})
        else:
            known = sorted(engine_keys | stage_keys)
            close = difflib.get_close_matches(key, known, n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'known: {", ".join(known)}'
            raise TrainingError(f'--set {change}: unknown key; {hint}')
    stage.engine.check()
    return stage


def _typed(change: str, old: Any, value: Any) -> Any:
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(old, float) and not isinstance(value, bool):
        # YAML reads 1e-3 as text: it wants 1.0e-3.
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    if type(value) is not type(old):
        raise TrainingError(f'--set {change}: expected {type(old).__name__}, got {value!r}')
    return value
