# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Fusion: from box-prompted masks to one map of scores and non-overlapping instances.

The union map is the paper's (S2M, section 3.3): masks are painted in descending order of score, so
where masks overlap the lowest score stays. Closed form: the minimum over the covering masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.result import SURROUNDINGS

NONE, ON_ROAD, BESIDE, IN_AIR = range(len(SURROUNDINGS))


class Instances(NamedTuple):
    """
    The objects of one frame, N rows, best score first.

    Attributes:
        labels: int32 (H, W), id of the object that owns the pixel, 0 = none.
        ids: int32 (N,), 1..65535, the values in `labels`.
        boxes: float32 (N, 4), XYXY pixels, tight around the instance's pixels.
        scores: float32 (N,), 0..1, score of the prompt.
        areas: int32 (N,), pixels.
        mean_scores: float32 (N,), mean of the score map over the instance.
        surroundings: uint8 (N,), index into `result.SURROUNDINGS`.
        union: float32 (H, W), 0..1, the paper's fused map: lowest score of the covering masks.

    """

    labels: Tensor
    ids: Tensor
    boxes: Tensor
    scores: Tensor
    areas: Tensor
    mean_scores: Tensor
    surroundings: Tensor
    union: Tensor


def union_map(masks: Tensor, scores: Tensor) -> Tensor:
    """
    Fuse masks as the paper does.

    Args:
        masks: bool (K, H, W).
        scores: float32 (K,), 0..1.

    Returns:
        float32 (H, W): per pixel the lowest score of the masks that cover it, 0 where none does.

    """
    if not len(masks):
        return scores.new_zeros(masks.shape[1:])
    lowest = torch.where(masks, scores[:, None, None], torch.inf).amin(0)
    return torch.where(torch.isinf(lowest), 0.0, lowest)


def fuse(
    logits: Tensor,
    scores: Tensor,
    valid: Tensor,
    score_map: Tensor,
    semantic: Tensor | None = None,
    road_classes: Sequence[int] = (),
    min_area: int = 16,
    duplicate: float = 0.6,
) -> Instances:
    """
    Turn box-prompted masks into a union map and non-overlapping instances.

    A mask that shares more than `duplicate` of the smaller area with a better one is its duplicate
    and gives no instance of its own (it still counts in the union map). A pixel that several
    remaining masks claim goes to the one with the lowest score, as in the union map.

    Args:
        logits: float (K, H, W), > 0 = object; NaN counts as outside.
        scores: float (K,), 0..1; NaN counts as 0.
        valid: bool (K,), False = an empty slot.
        score_map: float (H, W), the frame's score, for the means.
        semantic: uint8 (H, W) class ids, or None: surroundings are then 0.
        road_classes: class ids that an object can stand on (road, pavement).
        min_area: instances of fewer pixels are dropped.
        duplicate: share of the smaller mask's area, 0..1.

    """
    height, width = score_map.shape
    keep = valid.nonzero()[:, 0]
    if not len(keep):
        return no_instances(height, width, score_map.device)
    scores = torch.nan_to_num(scores[keep].float(), nan=0.0).clamp(0, 1)
    order = scores.argsort(descending=True, stable=True)
    masks, scores = logits[keep[order]] > 0, scores[order]
    union = union_map(masks, scores)
    chosen = _without_duplicates(masks, min_area, duplicate)
    masks, scores = masks[chosen], scores[chosen]
    rows = torch.arange(1, len(scores) + 1, device=masks.device, dtype=torch.int32)
    labels = (masks * rows[:, None, None]).amax(0) if len(rows) else union.to(torch.int32) * 0
    return _describe(labels, scores, score_map, semantic, road_classes, union, min_area)


def no_instances(height: int, width: int, device: torch.device | str = 'cpu') -> Instances:
    """Instances of a frame of (height, width) pixels in which nothing was found."""
    return Instances(
        torch.zeros(height, width, dtype=torch.int32, device=device),
        torch.zeros(0, dtype=torch.int32, device=device),
        torch.zeros(0, 4, device=device),
        torch.zeros(0, device=device),
        torch.zeros(0, dtype=torch.int32, device=device),
        torch.zeros(0, device=device),
        torch.zeros(0, dtype=torch.uint8, device=device),
        torch.zeros(height, width, device=device),
    )


def _without_duplicates(masks: Tensor, min_area: int, duplicate: float) -> Tensor:
    """Indices (best first) of masks that are large enough and no duplicate of a better one."""
    count = len(masks)
    # Every second pixel is enough to tell how much two masks share; tiny masks need them all.
    step = 2 if masks[0].numel() > 40_000 else 1
    flat = masks[:, ::step, ::step].reshape(count, -1).float()
    common = (flat @ flat.T).cpu()
    areas = common.diagonal()
    smaller = torch.minimum(areas[:, None], areas[None]).clamp(min=1)
    rivals = common / smaller > duplicate
    kept: list[int] = []
    for i in range(count):
        if areas[i] * step * step >= min_area and not any(bool(rivals[i, j]) for j in kept):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.long, device=masks.device)


def _describe(
    labels: Tensor,
    scores: Tensor,
    score_map: Tensor,
    semantic: Tensor | None,
    road_classes: Sequence[int],
    union: Tensor,
    min_area: int,
) -> Instances:
    """Measure instances 1..N of `labels` (H, W); those that shrank below `min_area` go."""
    count = len(scores)
    height, width = labels.shape
    y, x = labels.nonzero(as_tuple=True)
    owner = labels[y, x].long() - 1
    values = torch.nan_to_num(score_map[y, x].float(), nan=0.0, posinf=0.0, neginf=0.0)
    areas = torch.bincount(owner, minlength=count)
    sums = torch.zeros(count, device=labels.device).scatter_add_(0, owner, values)

    def extreme(position: Tensor, how: str, start: int) -> Tensor:
        line = torch.full((count,), start, device=labels.device, dtype=torch.long)
        return line.scatter_reduce(0, owner, position, how).float()

    boxes = torch.stack(
        [
            extreme(x, 'amin', width),
            extreme(y, 'amin', height),
            extreme(x, 'amax', -1) + 1,
            extreme(y, 'amax', -1) + 1,
        ],
        1,
    )
    large = areas >= min_area
    ids = torch.where(large, large.cumsum(0), 0).to(torch.int32)
    lookup = F.pad(ids, (1, 0))
    labels = lookup[labels.long()]
    boxes, scores, areas = boxes[large], scores[large], areas[large]
    surroundings = _surroundings(boxes, labels, semantic, road_classes)
    means = sums[large] / areas.clamp(min=1)
    return Instances(
        labels, ids[large], boxes, scores, areas.to(torch.int32), means, surroundings, union
    )


def _surroundings(
    boxes: Tensor, labels: Tensor, semantic: Tensor | None, road_classes: Sequence[int]
) -> Tensor:
    """
    Say where each instance stands, from the semantic map.

    Its foot is a strip below and beside the box's lowest fifth. At least half of the strip's
    pixels that belong to no instance are road or pavement: on the road. Otherwise, road somewhere
    in the columns below: in the air when the box ends above the upper third of the gap to it,
    beside when not.
    """
    codes = torch.zeros(len(boxes), dtype=torch.uint8, device=labels.device)
    if semantic is None or not road_classes or not len(boxes):
        return codes
    height, width = labels.shape
    road = torch.zeros(height, width, dtype=torch.bool, device=labels.device)
    for index in road_classes:
        road |= semantic == index
    free = labels == 0
    rows = road.any(1).nonzero()
    horizon = int(rows[0]) if len(rows) else height
    for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        reach = max(3, int(0.15 * (x2 - x1)), int(0.1 * (y2 - y1)))
        top, bottom = int(y2 - 0.2 * (y2 - y1)), min(height, int(y2) + reach)
        left, right = max(0, int(x1) - reach), min(width, int(x2) + reach)
        strip = (slice(max(0, top), bottom), slice(left, right))
        seen = int(free[strip].sum())
        share = int((road & free)[strip].sum()) / max(seen, 1)
        if share >= 0.5:
            codes[i] = ON_ROAD
        else:
            codes[i] = IN_AIR if y2 < horizon else BESIDE
    return codes
