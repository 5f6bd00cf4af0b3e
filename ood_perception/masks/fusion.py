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
    masks = logits > 0
    window = _window(masks)
    masks = masks[:, window[0], window[1]][order]
    if waits(masks.device) or bool((confidences < 0).any()):
        masks = masks & (confidences >= 0)[:, None, None]
    confidences = confidences.clamp(min=0)
    out = no_instances(height, width, score_map.device)
    if masks.numel():
        kept = _without_duplicates(masks, min_area, duplicate)
        if waits(masks.device):
            masks = masks & kept[:, None, None]
        else:
            masks, confidences = masks[kept], confidences[kept]
    if not masks.numel():
        return out
    owner, confidences, areas = _owners(masks, confidences, min_area)
    count = len(confidences)
    out.labels[window] = owner
    values = torch.nan_to_num(score_map[window].float(), nan=0.0, posinf=0.0, neginf=0.0)
    boxes = _bounds(owner, count)
    boxes[:, 0::2] += window[1].start
    boxes[:, 1::2] += window[0].start
    used = areas > 0
    boxes = boxes * used[:, None]
    ids = torch.arange(1, count + 1, device=owner.device, dtype=torch.int32)
    return out._replace(
        ids=ids * used,
        boxes=boxes,
        confidences=confidences,
        areas=areas.int(),
        mean_scores=_summed(owner, values, count) / areas.clamp(min=1),
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


def _owners(masks: Tensor, confidences: Tensor, min_area: int) -> tuple[Tensor, Tensor, Tensor]:
    """
    Give every pixel to one of bool (N, h, w) masks, best first, and drop those left with too few.

    Returns the owner int32 (h, w), 1..M, 0 = none, and confidences and areas float32 (M,), where
    it would wait for the device to know M with N - M rows of zeros after them.
    """
    owner, count = _last(masks), len(confidences)
    areas = _summed(owner, torch.ones(owner.shape, device=owner.device), count)
    large = areas >= min_area
    if not waits(owner.device) and bool(large.all()):
        return owner, confidences, areas
    # The pixels of a dropped mask belong to nobody.
    numbers = F.pad(large.cumsum(0).int() * large, (1, 0))
    order = (~large).int().argsort(stable=True)
    rows = count if waits(owner.device) else int(large.sum())
    owner = numbers.gather(0, owner.flatten().long()).view(owner.shape)
    kept, sizes = ((part * large)[order][:rows] for part in (confidences, areas))
    return owner, kept, sizes


def _summed(owner: Tensor, values: Tensor, count: int) -> Tensor:
    """Sum values (H, W) over the pixels of each owner 1..count, float32 (count,)."""
    sums = values.new_zeros(count + 1)
    return sums.index_add_(0, owner.flatten(), values.flatten())[1:]


def _bounds(owner: Tensor, count: int) -> Tensor:
    """Float32 (count, 4) XYXY around the pixels of each owner 1..count; each has some."""
    if not waits(owner.device):
        pixels = owner.numpy()
        found = [cv2.boundingRect((pixels == i).view(np.uint8)) for i in range(1, count + 1)]
        return torch.tensor([(x, y, x + w, y + h) for x, y, w, h in found]).float()
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
    ground = torch.zeros(height, width, dtype=torch.bool, device=labels.device)
    for index in ground_classes:
        ground |= semantic == index
    # On a host torch's `any` of a row takes twenty times as long as numpy's.
    rows = ground.any(1) if waits(ground.device) else torch.from_numpy(ground.numpy().any(1))
    horizon = torch.where(rows.any(), rows.to(torch.uint8).argmax(), height)
    x1, y1, x2, y2 = boxes.unbind(1)
    reach = torch.maximum((0.15 * (x2 - x1)).int(), (0.1 * (y2 - y1)).int()).clamp(min=3)
    top = (y2 - 0.2 * (y2 - y1)).int()
    strips = torch.stack([top, y2 + reach, x1 - reach, x2 + reach], 1).float()  # y, then x
    seen, grounded = _counted(strips, labels == 0, ground)
    elsewhere = torch.where(y2 < horizon, IN_AIR, BESIDE)
    return torch.where(2 * grounded >= seen.clamp(min=1), ON_ROAD, elsewhere).to(torch.uint8)


def _counted(strips: Tensor, free: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """Free pixels, and those of them on ground, (N,) each, in strips (N, 4): y, end, x, end."""
    if not waits(strips.device):
        counts = []
        for edges in strips.ceil().int().clamp(min=0).tolist():
            window = slice(*edges[:2]), slice(*edges[2:])
            counts.append([int(free[window].sum()), int((free[window] & ground[window]).sum())])
        seen, grounded = torch.tensor(counts).unbind(1)
        return seen, grounded
    y, x = (torch.arange(length, device=free.device) for length in free.shape)
    first_y, end_y, first_x, end_x = strips[:, :, None].unbind(1)
    down = ((y >= first_y) & (y < end_y)).float()
    across = ((x >= first_x) & (x < end_x)).float()
    # Sums over the strips are products of matrices: no loop, nothing asked of the device.
    seen, grounded = (((down @ x.float()) * across).sum(1) for x in (free, ground & free))
    return seen, grounded
