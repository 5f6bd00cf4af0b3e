# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Fusion: from box-prompted masks to one map of scores and non-overlapping instances.

The union map is the paper's (S2M, section 3.3): masks are painted in descending order of score, so
where masks overlap the lowest score stays. Closed form: the last covering mask, best first.
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
    scores, order = scores.sort(descending=True, stable=True)
    # Best first, so the last mask that covers a pixel has the lowest score there.
    return F.pad(scores, (1, 0))[_last(masks[order])]


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
    if not len(logits):
        return no_instances(height, width, score_map.device)
    # Empty slots go last and cover nothing, so nothing has to be asked of the device for them.
    scores = torch.where(valid, torch.nan_to_num(scores.float(), nan=0.0).clamp(0, 1), -1.0)
    scores, order = scores.sort(descending=True, stable=True)
    masks = logits > 0
    window = _window(masks)
    masks = masks[:, window[0], window[1]][order] & (scores >= 0)[:, None, None]
    scores = scores.clamp(min=0)
    out = no_instances(height, width, score_map.device)
    out.union[window] = union_map(masks, scores)
    chosen = _without_duplicates(masks, min_area, duplicate) if masks.numel() else []
    if not chosen:
        return out
    rows = torch.tensor(chosen, device=masks.device)
    owner, scores, areas = _owners(masks[rows], scores[rows], min_area)
    count = len(scores)
    out.labels[window] = owner
    values = torch.nan_to_num(score_map[window].float(), nan=0.0, posinf=0.0, neginf=0.0)
    boxes = _bounds(owner, count)
    boxes += boxes.new_tensor([window[1].start, window[0].start] * 2)
    return out._replace(
        ids=torch.arange(1, count + 1, device=owner.device, dtype=torch.int32),
        boxes=boxes,
        scores=scores,
        areas=areas.int(),
        mean_scores=_summed(owner, values, count) / areas.clamp(min=1),
        surroundings=_surroundings(boxes, out.labels, semantic, road_classes),
    )


def _window(masks: Tensor) -> tuple[slice, slice]:
    """Rows and columns that hold all masks (K, H, W); on a device, where asking costs, all."""
    height, width = masks.shape[1:]
    if masks.device.type != 'cpu':
        return slice(0, height), slice(0, width)
    covered = masks.numpy().any(0)
    window = []
    for axis in (1, 0):
        taken = covered.any(axis).nonzero()[0]
        window.append(slice(int(taken[0]), int(taken[-1]) + 1) if len(taken) else slice(0, 0))
    return window[0], window[1]


def _last(masks: Tensor) -> Tensor:
    """Number 1..K of the last mask of bool (K, H, W) that covers each pixel, 0 = none."""
    count = len(masks)
    kind = torch.uint8 if count < 256 else torch.int32
    numbers = torch.arange(1, count + 1, device=masks.device, dtype=kind)
    return (masks.to(kind) * numbers[:, None, None]).amax(0).int()


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


def _without_duplicates(masks: Tensor, min_area: int, duplicate: float) -> list[int]:
    """Rows (best first) of masks that are large enough and no duplicate of a better one."""
    # Every second pixel is enough to tell how much two masks share; tiny masks need them all.
    step = 2 if masks[0].numel() > 40_000 else 1
    flat = masks[:, ::step, ::step].reshape(len(masks), -1).float()
    common = (flat @ flat.T).cpu()
    areas = common.diagonal()
    smaller = torch.minimum(areas[:, None], areas[None]).clamp(min=1)
    rivals = common / smaller > duplicate
    large = (areas * step * step >= min_area).tolist()
    kept: list[int] = []
    for i in range(len(masks)):
        if large[i] and not bool(rivals[i, kept].any()):
            kept.append(i)
    return kept


def _owners(masks: Tensor, scores: Tensor, min_area: int) -> tuple[Tensor, Tensor, Tensor]:
    """
    Give every pixel to one mask; masks that are left with too little go.

    Args:
        masks: bool (N, h, w), best first.
        scores: float32 (N,), descending.
        min_area: pixels.

    Returns:
        owner int32 (h, w), 1..M, 0 = none; scores and areas float32 (M,).

    """
    owner, count = _last(masks), len(scores)
    areas = _summed(owner, torch.ones(owner.shape, device=owner.device), count)
    large = [row for row, area in enumerate(areas.tolist()) if area >= min_area]
    if len(large) == count:
        return owner, scores, areas
    kept = torch.tensor(large, dtype=torch.long, device=owner.device)
    numbers = torch.zeros(count + 1, dtype=torch.int32, device=owner.device)
    numbers[kept + 1] = torch.arange(1, len(kept) + 1, device=owner.device).int()
    # What a dropped mask claimed belongs to nobody.
    return numbers[owner], scores[kept], areas[kept]


def _summed(owner: Tensor, values: Tensor, count: int) -> Tensor:
    """Sum values (H, W) over the pixels of each owner 1..count, float32 (count,)."""
    sums = values.new_zeros(count + 1)
    return sums.index_add_(0, owner.flatten(), values.flatten())[1:]


def _bounds(owner: Tensor, count: int) -> Tensor:
    """Float32 (count, 4) XYXY around the pixels of each owner 1..count; each has some."""
    sides = []
    for axis, length in enumerate(owner.shape):
        place = torch.arange(length, device=owner.device)
        place = place[:, None] if axis == 0 else place[None]
        taken = torch.zeros((count + 1) * length, dtype=torch.uint8, device=owner.device)
        taken.scatter_(0, (owner * length + place).flatten(), 1)
        line = taken.view(count + 1, length)[1:]
        sides.append([line.argmax(1), length - line.flip(1).argmax(1)])
    (top, bottom), (left, right) = sides
    return torch.stack([left, top, right, bottom], 1).float()


def _surroundings(
    boxes: Tensor, labels: Tensor, semantic: Tensor | None, road_classes: Sequence[int]
) -> Tensor:
    """
    Say where each instance stands, from the semantic map.

    Its foot is a strip below and beside the box's lowest fifth. At least half of the strip's
    pixels that belong to no instance are road or pavement: on the road. Otherwise it is in the
    air when its box ends above the highest road, and beside when not.
    """
    codes = torch.zeros(len(boxes), dtype=torch.uint8, device=labels.device)
    if semantic is None or not road_classes or not len(boxes):
        return codes
    height, width = labels.shape
    road = torch.zeros(height, width, dtype=torch.bool, device=labels.device)
    for index in road_classes:
        road |= semantic == index
    rows = road.any(1)
    horizon = torch.where(rows.any(), rows.to(torch.uint8).argmax(), height)
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    reach = torch.maximum((0.15 * (x2 - x1)).int(), (0.1 * (y2 - y1)).int()).clamp(min=3)
    y = torch.arange(height, device=labels.device)
    x = torch.arange(width, device=labels.device)
    down = ((y >= (y2 - 0.2 * (y2 - y1)).int()) & (y < y2 + reach)).float()
    across = ((x >= x1 - reach) & (x < x2 + reach)).float()
    # Sums over the strips as products of matrices: no loop, nothing asked of the device.
    free = labels == 0
    seen = ((down @ free.float()) * across).sum(1)
    on_road = ((down @ (road & free).float()) * across).sum(1)
    elsewhere = torch.where(y2[:, 0] < horizon, IN_AIR, BESIDE)
    return torch.where(2 * on_road >= seen.clamp(min=1), ON_ROAD, elsewhere).to(torch.uint8)
