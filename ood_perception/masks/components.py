# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Connected components of a probability map at several levels, with fixed numbers of slots.

On the CPU OpenCV labels the levels one by one; on a GPU all levels are labelled at once by
spreading the largest index, with shapes that do not depend on the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.masks.boxes import waits

ROUNDS, JUMPS = 10, 6
"""Of `label_components`: rounds, and steps of each that flatten trees 2^6 deep."""


class Regions(NamedTuple):
    """
    Connected components of one map, M slots a level, L levels, largest peak first in a level.

    Attributes:
        boxes: float32 (L, M, 4) XYXY in cells of the map, right and bottom edges exclusive.
        areas: float32 (L, M), cells; 0 = the slot is empty.
        peaks: float32 (L, M), largest probability 0..1 in the component.

    """

    boxes: Tensor
    areas: Tensor
    peaks: Tensor


def find_regions(probability: Tensor, levels: Sequence[float], slots: int) -> Regions:
    """
    List the 8-connected components of {probability >= level} for each level.

    Args:
        probability: float32 (h, w), 0..1, finite.
        levels: thresholds 0..1, any order.
        slots: components kept for each level, those with the largest peak (then largest area).

    """
    if not waits(probability):
        return _regions_opencv(probability, levels, slots)
    return _regions_device(probability, levels, slots)


def _regions_opencv(probability: Tensor, levels: Sequence[float], slots: int) -> Regions:
    image = probability.detach().numpy()
    out = np.zeros((len(levels), slots, 6), np.float32)
    for row, level in zip(out, levels, strict=True):
        mask = (image >= level).view(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        if count < 2:
            continue
        inside = labels > 0
        owner, values = labels[inside] - 1, image[inside]
        peaks = np.zeros(count - 1, np.float32)
        np.maximum.at(peaks, owner.astype(np.intp), values)
        x, y, w, h, area = stats[1:].T.astype(np.float32)
        order = np.lexsort((-area, -peaks))[:slots]
        table = np.stack([x, y, x + w, y + h, area, peaks], 1)
        row[: len(order)] = table[order]
    table = torch.from_numpy(out)
    return Regions(table[..., :4], table[..., 4], table[..., 5])


def label_components(mask: Tensor) -> Tensor:
    """
    Label 8-connected components without leaving the device.

    A component's root is a pixel of it: at first each pixel is its own. In each round a root hangs
    on the largest root next to its component, and the trees that come of it are flattened. Ten
    rounds are enough for mazes of 180 x 320 cells, pictures need five.

    Args:
        mask: bool (L, h, w).

    Returns:
        int64 (L, h, w), flat index h * w of the component's last pixel; -1 outside the mask.

    """
    count, h, w = mask.shape
    index = torch.arange(h * w, device=mask.device).view(1, h, w).expand(count, h, w)
    labels = torch.where(mask, index, -1)
    own = index.reshape(count, -1)
    for _ in range(ROUNDS):
        # Indices below 2^24 are exact in float32, which is what max-pooling wants.
        near = F.max_pool2d(labels.float()[:, None], 3, 1, 1)[:, 0].long()
        roots = labels.view(count, -1).clamp(min=0)
        near = torch.where(mask, near, -1).view(count, -1)
        parents = own.scatter_reduce(1, roots, near, 'amax')
        for _ in range(JUMPS):
            parents = parents.gather(1, parents)
        before = labels
        labels = torch.where(mask, parents.gather(1, roots).view(count, h, w), -1)
        if not waits(mask) and torch.equal(before, labels):
            break
    return labels


def _regions_device(probability: Tensor, levels: Sequence[float], slots: int) -> Regions:
    h, w = probability.shape
    count = len(levels)
    labels = label_components(torch.stack([probability >= level for level in levels]))
    labels = labels.view(count, -1)
    # One spare bin takes the pixels outside of every component.
    owner = torch.where(labels >= 0, labels, h * w)
    values = probability.reshape(1, -1).expand(count, -1).float()
    position = torch.arange(h * w, device=probability.device)
    x = (position % w).float().expand(count, -1)
    y = (position // w).float().expand(count, -1)

    def gathered(source: Tensor, how: str, start: float) -> Tensor:
        bins = source.new_full((count, h * w + 1), start)
        return bins.scatter_reduce(1, owner, source, how)[:, :-1]

    areas = gathered(torch.ones_like(values), 'sum', 0.0)
    peaks = gathered(values, 'amax', 0.0)
    # Peak first, then area: areas are whole numbers, so a fraction of them only breaks ties.
    rank = torch.where(areas > 0, peaks.double() + areas.double() * 1e-12, -1.0)
    slots_here = min(slots, h * w)
    chosen = rank.topk(slots_here, dim=1).indices
    boxes = torch.stack(
        [
            gathered(x, 'amin', float(w)).gather(1, chosen),
            gathered(y, 'amin', float(h)).gather(1, chosen),
            gathered(x, 'amax', -1.0).gather(1, chosen) + 1,
            gathered(y, 'amax', -1.0).gather(1, chosen) + 1,
        ],
        -1,
    )
    areas, peaks = (t.gather(1, chosen) for t in (areas, peaks))
    boxes = torch.where(areas[..., None] > 0, boxes, 0.0)
    pad = slots - slots_here
    return Regions(F.pad(boxes, (0, 0, 0, pad)), F.pad(areas, (0, pad)), F.pad(peaks, (0, pad)))
