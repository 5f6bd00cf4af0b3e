# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
One class for each pixel, as costmap layers for semantic segmentation read it.

The classes of the profile keep their ids; behind them come `unknown` and `hazard`, which is what
is unknown on the ground where one drives. A second image says how sure the class is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.result import NO_CLASS, SURROUNDINGS

UNKNOWN, HAZARD, UNLABELED, KNOWN = 'unknown', 'hazard', 'unlabeled', 'known'

ON_GROUND = SURROUNDINGS.index('on_road')

Mask = NDArray[np.uint8]


def class_names(classes: Sequence[str]) -> dict[int, str]:
    """
    Name of each id in the mask; without any classes, what is not unknown is 'known'.

    More classes than a mono8 image has room for are a ValueError.
    """
    known = list(classes) or [KNOWN]
    if len(known) > NO_CLASS - 2:
        raise ValueError(f'classes: expected at most {NO_CLASS - 2}, got {len(known)}')
    return {**dict(enumerate([*known, UNKNOWN, HAZARD])), NO_CLASS: UNLABELED}


def class_mask(
    classes: Sequence[str],
    semantic: Mask | None,
    heatmap: Mask,
    instances: NDArray[np.uint16] | None,
    ids: Any,
    surroundings: Any,
    threshold: float,
    size: tuple[int, int] | None = None,
) -> tuple[Mask, Mask]:
    """
    Put the known classes of a profile and the unknown objects of a `Result` into one image.

    A pixel without an object is unknown from the probability `threshold` on. `size` is (h, w) of
    what is returned, None = (H, W): uint8 ids as in :func:`class_names`, and uint8 confidence in
    that class, 0..255 = 0..1.
    """
    count = len(classes) or 1
    shape = heatmap.shape if size is None else size

    def fit(image: Any) -> Any:
        if image is None or image.shape == shape:
            return image
        return cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)

    semantic, probability, objects = fit(semantic), fit(heatmap), fit(instances)
    if semantic is None:
        mask = np.zeros(shape, np.uint8)
    else:  # a class without a name must not pass for an unknown object
        mask = np.where(semantic < count, semantic, NO_CLASS).astype(np.uint8)
    unknown = probability >= np.ceil(threshold * 255)
    mask[unknown] = count
    if objects is not None and len(ids):
        table = np.full(1 << 16, count, np.uint8)
        table[np.asarray(ids, np.int64)[np.asarray(surroundings) == ON_GROUND]] = count + 1
        inside = objects > 0
        mask[inside] = table[objects[inside]]
        unknown |= inside
    return mask, np.where(unknown, probability, 255 - probability).astype(np.uint8)
