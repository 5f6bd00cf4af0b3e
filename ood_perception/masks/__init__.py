# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""S2M: from a score map to whole-object instance masks."""

from ood_perception.masks.base import MaskModel, PromptModel
from ood_perception.masks.boxes import Boxes
from ood_perception.masks.fusion import Instances, fuse
from ood_perception.masks.registry import (
    MASK_MODELS,
    PROMPTS,
    create_mask_model,
    create_prompts,
)
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
