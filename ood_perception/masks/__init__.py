# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""S2M: from a score map to whole-object instance masks."""

from ood_perception.masks.boxes import Boxes
from ood_perception.masks.fusion import Instances, fuse
from ood_perception.masks.prompts import PROMPTS, create_prompts
from ood_perception.masks.segmenters import SEGMENTERS, create_segmenter
from ood_perception.masks.tracking import Tracker

__all__ = [
    'PROMPTS',
    'SEGMENTERS',
    'Boxes',
    'Instances',
    'Tracker',
    'create_prompts',
    'create_segmenter',
    'fuse',
]
