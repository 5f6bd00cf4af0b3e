# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
S2M: from a score map to whole-object instance masks; tables of prompt models and mask models.

Adding one is one class or function and one entry of `PROMPTS` or `MASK_MODELS`. What needs a
package or weights of its own is imported when it is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from ood_perception.masks.base import MaskModel, PromptModel
from ood_perception.masks.boxes import Boxes
from ood_perception.masks.components import ComponentPrompts
from ood_perception.masks.crop_masks import CompactMaskModel
from ood_perception.masks.detection_prompts import DetectionHeadPrompts
from ood_perception.masks.fusion import Instances, fuse
from ood_perception.masks.score_detector import ScoreDetectorPrompts
from ood_perception.masks.tracking import Tracker

__all__ = [
    'MASK_MODELS',
    'PROMPTS',
    'Boxes',
    'Instances',
    'MaskModel',
    'PromptModel',
    'Tracker',
    'create_mask_model',
    'create_prompts',
    'fuse',
]

log = logging.getLogger(__name__)


def _faster_rcnn(**options: Any) -> PromptModel:
    from ood_perception.masks.rcnn_prompts import RCNNPrompts

    return RCNNPrompts(**options)


def _sam(kind: str, **options: Any) -> MaskModel:
    from ood_perception.masks.sam import create_sam

    return create_sam(kind, **options)


PROMPTS: dict[str, Callable[..., PromptModel]] = {
    'components': ComponentPrompts,
    'detection_head': DetectionHeadPrompts,
    'score_detector': ScoreDetectorPrompts,
    'faster_rcnn': _faster_rcnn,
}
"""Prompt models by name, see `PromptModel`."""

RENAMED = {'light': 'score_detector'}
"""Old names of prompt models, read for one release with a warning."""

MASK_MODELS: dict[str, Callable[..., MaskModel]] = {
    'compact': CompactMaskModel,
    'sam_vit_b': partial(_sam, 'vit_b'),
    'sam_vit_l': partial(_sam, 'vit_l'),
    'sam_vit_h': partial(_sam, 'vit_h'),
    'mobile_sam': partial(_sam, 'mobile'),
}
"""Mask models by name, see `MaskModel`. The SAM family needs weights and a package of its own."""


def create_prompts(name: str, **options: Any) -> PromptModel:
    """
    Build an entry of `PROMPTS` with its keyword arguments.

    ValueError: no such entry, or an option out of its range. TypeError: an option that it has not.
    """
    if name in RENAMED:
        log.warning('prompts: %r is called %r now; change the profile', name, RENAMED[name])
        name = RENAMED[name]
    if name not in PROMPTS:
        raise ValueError(f'no prompt model named {name!r}; there are: {", ".join(PROMPTS)}')
    return PROMPTS[name](**options)


def create_mask_model(name: str, **options: Any) -> MaskModel:
    """
    Build an entry of `MASK_MODELS` with its keyword arguments.

    ValueError and TypeError as of `create_prompts`. ImportError: the model's package is not
    installed; the message names it.
    """
    if name not in MASK_MODELS:
        raise ValueError(f'no mask model named {name!r}; there are: {", ".join(MASK_MODELS)}')
    return MASK_MODELS[name](**options)
