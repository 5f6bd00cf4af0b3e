# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Fusion: from box-prompted masks to instances that do not overlap.

As in the paper (S2M, arXiv 2411.16816, section 3.3), masks are painted in descending order of
confidence, so the least confident of the masks that cover a pixel gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.masks.boxes import best_of_rivals, waits
from ood_perception.result import SURROUNDINGS

NONE, ON_ROAD, BESIDE, IN_AIR = range(len(SURROUNDINGS))


class Instances(NamedTuple):
    """
    The objects of one frame, N rows, most confident first.

    Where asking for their number would wait for the device, empty rows follow whose values are 0.
    """

    labels: Tensor  # int32 (H, W), id of the object that owns the pixel, 0 = none
    ids: Tensor  # int32 (N,), 1..65535, the values in `labels`; 0 = an empty row
    boxes: Tensor  # float32 (N, 4), XYXY pixels, tight around the instance's pixels
    confidences: Tensor  # float32 (N,), 0..1, of the prompt
    areas: Tensor  # int32 (N,), pixels
    mean_scores: Tensor  # float32 (N,), mean of the score map over the instance
    surroundings: Tensor  # uint8 (N,), index into `result.SURROUNDINGS`


def fuse(
    logits: Tensor,
    confidences: Tensor,
    valid: Tensor,
    score_map: Tensor,
    semantic: Tensor | None = None,
    ground_classes: Sequence[int] = (),
    min_area: int = 16,
    duplicate: float = 0.6,
) -> Instances:
    """
    Turn box-prompted masks into instances that do not overlap.

    A mask that shares more than `duplicate`, 0..1, of the smaller area with a better one is its
    duplicate and gives no instance of its own, nor do fewer than `min_area` pixels. A pixel that
    several remaining masks claim goes to the one with the lowest confidence.

    Args:
        logits: float (K, H, W), > 0 = object; NaN counts as outside.
        confidences: float (K,), 0..1; NaN counts as 0.
        valid: bool (K,), False = an empty slot.
        score_map: float (H, W), the frame's raw score, for the means.
        semantic: uint8 (H, W) class ids, or None: surroundings are then 0.
        ground_classes: class ids that an object can stand on, such as road and pavement.
    """
    height, width = score_map.shape
    if not len(logits):
        return no_instances(height, width, score_map.device)
    # Empty slots go last and cover nothing, so nothing has to be asked of the device for them.
    clean = torch.nan_to_num(confidences.float(), nan=0.0).clamp(0, 1)
    confidences, order = torch.where(valid, clean, -1.0).sort(descending=True, stable=True)
    host = not waits(logits.device)
    # Beside other work, a comparison that torch shares out among threads takes many times as long.
    masks = torch.from_numpy(logits.numpy() > 0) if host else logits > 0
    window = _window(masks)
    masks = masks[:, window[0], window[1]][order]
    if not host or bool((confidences < 0).any()):
        masks = masks & (confidences >= 0)[:, None, None]
    confidences = confidences.clamp(min=0)
    out = no_instances(height, width, score_map.device)
    if masks.numel():
        kept = _without_duplicates(masks, min_area, duplicate)
        if host:
            masks, confidences = masks[kept], confidences[kept]
        else:
            masks = masks & kept[:, None, None]
    if not masks.numel():
        return out
    values = torch.nan_to_num(score_map[window].float(), nan=0.0, posinf=0.0, neginf=0.0)
    owner = _last(masks)
    boxes, areas, sums = (_measured_on_host if host else _measured)(owner, values, len(masks))
    owner, order, used = _without_small(owner, areas >= min_area)
    boxes, areas, sums, confidences = (
        part[order] * used.view(-1, *[1] * (part.ndim - 1))
        for part in (boxes, areas, sums, confidences)
    )
    out.labels[window] = owner
    offset = [window[1].start, window[0].start]
    for axis in (0, 1):
        boxes[:, axis::2] += offset[axis] * used[:, None]
    ids = torch.arange(1, len(used) + 1, device=owner.device, dtype=torch.int32)
    return out._replace(
        ids=ids * used,
        boxes=boxes,
        confidences=confidences,
        areas=areas.int(),
        mean_scores=sums / areas.clamp(min=1),
        surroundings=_surroundings(boxes, out.labels, semantic, ground_classes) * used,
    )


def _window(masks: Tensor) -> tuple[slice, slice]:
    """Rows and columns that hold all masks (K, H, W); the whole frame where asking would wait."""
    height, width = masks.shape[1:]
    if waits(masks.device):
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
    )


def _without_duplicates(masks: Tensor, min_area: int, duplicate: float) -> Tensor:
    """Bool (K,): masks (best first) that are large enough and no duplicate of a better one."""
    # Every second pixel is enough to tell how much two masks share; tiny masks need them all.
    step = 2 if masks[0].numel() > 40_000 and not waits(masks.device) else 1
    flat = masks[:, ::step, ::step].reshape(len(masks), -1).float()
    common = flat @ flat.T
    areas = common.diagonal()
    smaller = torch.minimum(areas[:, None], areas[None]).clamp(min=1)
    return best_of_rivals(common / smaller > duplicate, areas * step * step >= min_area)


def _without_small(owner: Tensor, large: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """
    Take the pixels of masks that are not `large`, bool (N,), from the owner (h, w), 0 = none.

    Returns the owner with numbers 1..M, the rows of the masks left, and which of those rows are
    used: where asking for M would wait for the device, N - M rows that are not come last.
    """
    host = not waits(owner.device)
    order = (~large).int().argsort(stable=True)
    if host and bool(large.all()):
        return owner, order, large
    numbers = F.pad(large.cumsum(0).int() * large, (1, 0))
    owner = numbers.gather(0, owner.flatten().long()).view(owner.shape)
    order = order[: int(large.sum())] if host else order
    return owner, order, large[order]


def _measured_on_host(owner: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `_measured` does, by OpenCV: each owner has only its own box read."""
    rows: list[list[float]] = []
    pixels, measures = owner.numpy(), values.numpy()
    for number in range(1, count + 1):
        mine = (pixels == number).view(np.uint8)
        x, y, w, h = cv2.boundingRect(mine)
        part = slice(y, y + h), slice(x, x + w)
        total = float((measures[part] * mine[part]).sum())
        rows.append([x, y, x + w, y + h, cv2.countNonZero(mine[part]) if w else 0, total])
    table = torch.tensor(rows)
    return table[:, :4], table[:, 4], table[:, 5]


def _measured(owner: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """
    Measure the pixels of each owner 1..count in (h, w).

    Returns float32 boxes (count, 4) XYXY around them, their number (count,) and the sum of their
    values (count,); the box of an owner without any is not told.
    """
    sides = []
    for axis, length in enumerate(owner.shape):
        place = torch.arange(length, device=owner.device)
        place = place[:, None] if axis == 0 else place[None]
        taken = torch.zeros((count + 1) * length, dtype=torch.uint8, device=owner.device)
        taken.scatter_(0, (owner * length + place).flatten(), 1)
        line = taken.view(count + 1, length)[1:]
        sides.append([line.argmax(1), length - line.flip(1).argmax(1)])
    (top, bottom), (left, right) = sides
    both = torch.stack([torch.ones_like(values), values]).flatten(1)
    sums = values.new_zeros(2, count + 1).index_add_(1, owner.flatten(), both)[:, 1:]
    return torch.stack([left, top, right, bottom], 1).float(), sums[0], sums[1]


def _surroundings(
    boxes: Tensor, labels: Tensor, semantic: Tensor | None, ground_classes: Sequence[int]
) -> Tensor:
    """
    Say where each instance stands, from the semantic map.

    The foot of an instance is a strip below and beside the lowest fifth of its box. The instance
    is on the road where at least half of the strip's pixels that belong to no instance are ground.
    Otherwise it is in the air when its box ends above the highest ground, and beside when not.
    """
    codes = torch.zeros(len(boxes), dtype=torch.uint8, device=labels.device)
    if semantic is None or not ground_classes or not len(boxes):
        return codes
    height, width = labels.shape
    if waits(semantic.device):
        ground = torch.zeros(height, width, dtype=torch.bool, device=labels.device)
        for index in ground_classes:
            ground |= semantic == index
        rows = ground.any(1)
    else:  # torch takes ten times as long
        is_ground = np.zeros(256, np.uint8)
        is_ground[list(ground_classes)] = 1
        ground = torch.from_numpy(cv2.LUT(semantic.numpy(), is_ground).view(bool))
        rows = torch.from_numpy(ground.numpy().any(1))
    horizon = torch.where(rows.any(), rows.to(torch.uint8).argmax(), height)
    x1, y1, x2, y2 = boxes.unbind(1)
    reach = torch.maximum((0.15 * (x2 - x1)).int(), (0.1 * (y2 - y1)).int()).clamp(min=3)
    top = (y2 - 0.2 * (y2 - y1)).int()
    strips = torch.stack([top, y2 + reach, x1 - reach, x2 + reach], 1).float()  # y, then x
    seen, grounded = _counted(strips, labels, ground)
    elsewhere = torch.where(y2 < horizon, IN_AIR, BESIDE)
    return torch.where(2 * grounded >= seen.clamp(min=1), ON_ROAD, elsewhere).to(torch.uint8)


def _counted(strips: Tensor, labels: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """
    Count the pixels of no instance, and those of them on ground, in strips (N, 4).

    The strips are y, end, x, end; both counts (N,).
    """
    if not waits(strips.device):
        counts = []
        for edges in strips.ceil().int().clamp(min=0).tolist():
            window = slice(*edges[:2]), slice(*edges[2:])
            free = labels.numpy()[window] == 0
            counts.append([free.sum(), (free & ground.numpy()[window]).sum()])
        seen, grounded = torch.tensor(counts).unbind(1)
        return seen, grounded
    free = labels == 0
    y, x = (torch.arange(length, device=free.device) for length in free.shape)
    first_y, end_y, first_x, end_x = strips[:, :, None].unbind(1)
    down = ((y >= first_y) & (y < end_y)).float()
    across = ((x >= first_x) & (x < end_x)).float()
    # Sums over the strips are products of matrices: no loop, nothing asked of the device.
    seen, grounded = (((down @ x.float()) * across).sum(1) for x in (free, ground & free))
    return seen, grounded
