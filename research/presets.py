# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Presets of the retraining of the shipped weights and of the papers.

The numbers of `uem_*` and `s2m` are those of the published code (where paper and code differ, the
code's): AdamW 5e-4, 1,500 steps of warm-up, linear to 1e-7, batch 4 a GPU, and so on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from ood_training.presets import COMPACT_PROFILE, DINOV2_PROFILE, Preset, Stage
from ood_training.settings import TrainSettings
from research.optimizers import PaperSettings


@dataclass(frozen=True)
class PaperStage(Stage):
    """
    A stage with what the papers' recipes and the retraining need besides.

    Attributes:
        recipe: entry of `research.recipes.RECIPES`.
        label_stride: the loss sees every n-th row and column of the label (1 in the papers). An
            even one shifts what is learnt by half a pixel: no pixel lies in the middle of a cell.
        update_interval: steps between updates of a GMM head's statistics.
        paper: reproduce the official BatchNorm drift of stage 2.
        object_least: pixels; unknown objects of fewer are void, 0 = none is.
        alpha: weight of the cross entropy over the UEM's outputs.
        cache: samples whose frozen features are kept on disk, 0 = compute them every time.

    """

    recipe: str = 'uem'
    label_stride: int = 1
    update_interval: int = 5
    paper: bool = False
    object_least: int = 0
    cache: int = 0
    alpha: float = 0.0


@dataclass(frozen=True)
class PaperPreset(Preset):
    """
    A preset of more stages than that of the UEM.

    Attributes:
        segmentor: stage 1.
        uem: stage 2.
        prompts: training of the prompt generator.

    """

    uem: PaperStage = field(default_factory=PaperStage)
    segmentor: PaperStage = field(default_factory=PaperStage)
    prompts: PaperStage = field(default_factory=PaperStage)


UEM_STAGE_1 = TrainSettings(
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
S2M_PROMPTS = PaperSettings(
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


def _uem(form: str) -> PaperPreset:
    return PaperPreset(
        model=f'uem_{form}',
        segmentor=PaperStage(UEM_STAGE_1, 'uem', update_interval=5),
        uem=PaperStage(
            UEM_STAGE_2,
            'uem_mix',
            {'probability': 0.2},
            alpha=0.5 if form == 'gg' else 0.0,
            update_interval=3,
        ),
        prompts=PaperStage(S2M_PROMPTS, 'rpl'),
        profile=DINOV2_PROFILE,
        source='Nayal et al., IJCV 2025, and its code',
    )


COMPACT_STAGE_1 = TrainSettings(
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

PRESETS: dict[str, PaperPreset] = {
    'uem_gd': _uem('gd'),
    'uem_dd': _uem('dd'),
    'uem_gg': _uem('gg'),
    's2m': PaperPreset(
        model='uem_gd',
        prompts=PaperStage(S2M_PROMPTS, 'rpl', {'crop': 700}),
        source='Zhao et al., CVPR 2024, and its code; learning rate as on its command line',
    ),
    'compact': PaperPreset(
        model='compact',
        segmentor=PaperStage(COMPACT_STAGE_1, 'exposure.known', label_stride=4),
        uem=PaperStage(
            COMPACT_STAGE_2,
            'exposure.outlier',
            alpha=0.0,
            unknown_weight=3.0,
            object_area=500.0,
            exact=False,
        ),
        profile=COMPACT_PROFILE,
        source='this project',
    ),
}
"""Name -> preset."""
