# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Boxes in a fixed number of slots, and the arithmetic on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ALWAYS_WAITS = False  # whether the host's tensors count as a GPU's, which tests want
STEPS = 32  # in which a GPU decides between rivals; only longer chains of rivals end otherwise


class Boxes(NamedTuple):
    """Box prompts of a batch of B frames in K fixed slots, best first, empty slots last."""

    boxes: Tensor  # float32 (B, K, 4), XYXY pixels of the score map; zeros in empty slots
    confidences: Tensor  # float32 (B, K), 0..1, that the box holds an unknown object
    valid: Tensor  # bool (B, K), False in empty slots


def empty_boxes(batch: int, slots: int, device: torch.device | str = 'cpu') -> Boxes:
    """Boxes of `batch` frames in which nothing was found."""
    return Boxes(
        torch.zeros(batch, slots, 4, device=device),
        torch.zeros(batch, slots, device=device),
        torch.zeros(batch, slots, dtype=torch.bool, device=device),
    )


def waits(device: torch.device) -> bool:
    """Whether the host would wait for a value on the device: shapes must not depend on it then."""
    return ALWAYS_WAITS or device.type != 'cpu'


def clean_boxes(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """
    Clip boxes, float (..., 4) XYXY, to a frame of (height, width) pixels.

    They may hold NaN, infinities, swapped or outside corners. Returns float32 boxes, zeros where
    nothing is left, and bool (...,), whether the box covers some of the frame.
    """
    finite = torch.isfinite(boxes).all(-1)
    found = torch.nan_to_num(boxes.float())
    sides = (found[..., 0::2].clamp(0, width), found[..., 1::2].clamp(0, height))
    clipped = torch.stack(sides, -1).flatten(-2)
    valid = finite & (clipped[..., 2] > clipped[..., 0]) & (clipped[..., 3] > clipped[..., 1])
    return torch.where(valid[..., None], clipped, 0.0), valid


def pixels_of(box: Sequence[float]) -> tuple[slice, slice]:
    """Rows and columns of a map that hold what is in a box, x1, y1, x2, y2 in pixels."""
    x1, y1, x2, y2 = box
    return slice(int(y1), int(y2) + 1), slice(int(x1), int(x2) + 1)


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """
    Compare boxes, float (..., N, 4) and (..., M, 4) XYXY, pair by pair.

    Returns intersection over union (..., N, M), and the share of the smaller box that lies in the
    larger one (..., N, M); both 0 where a box is empty.
    """
    corner = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    other = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    common = (other - corner).clamp(min=0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).clamp(min=0).prod(-1)[..., :, None]
    area_b = (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1)[..., None, :]
    union = (area_a + area_b - common).clamp(min=1e-9)
    return common / union, common / torch.minimum(area_a, area_b).clamp(min=1e-9)


def best_of_rivals(rivals: Tensor, able: Tensor) -> Tensor:
    """
    Choose greedily: a candidate is kept unless it is the rival of a better one that is kept.

    From `rivals`, symmetric bool (..., N, N), the best first, and `able`, bool (..., N), those
    that may be kept at all, to bool (..., N).
    """
    better = rivals.tril(-1)
    keep = able
    # After n steps all is right up to chains of n rivals, each of which saves the next but one.
    for _ in range(min(rivals.shape[-1], STEPS) if waits(able.device) else rivals.shape[-1]):
        before, keep = keep, able & ~(better & keep[..., None, :]).any(-1)
        if not waits(able.device) and torch.equal(before, keep):
            break
    return keep


def suppress(
    boxes: Tensor,
    confidences: Tensor,
    slots: int,
    iou: float,
    containment: float = 1.1,
    merit: Tensor | None = None,
) -> Boxes:
    """
    Greedy non-maximum suppression with static shapes: the best `slots` boxes of each frame.

    From float32 (B, M, 4) XYXY boxes and float32 (B, M) confidences, not positive = empty slot. A
    box is dropped that overlaps a better kept one by more than `iou`, or of which a larger share
    than `containment` lies in one (or holds it). The better box is that of the larger `merit`,
    float32 (B, M), by default the confidences.
    """
    merit = confidences if merit is None else torch.where(confidences > 0, merit, 0.0)
    # Candidates beyond the limit would hardly be kept.
    limit = min(merit.shape[1], max(64, 4 * slots))
    if not waits(merit.device):
        limit = min(limit, int((merit > 0).sum(1).amax()) if merit.numel() else 0)
    merit, order = merit.sort(dim=1, descending=True, stable=True)
    merit, order = merit[:, :limit], order[:, :limit]
    confidences = confidences.gather(1, order)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    union, inside = overlaps(boxes, boxes)
    rivals = (union > iou) | (inside > containment)
    keep = best_of_rivals(rivals, merit > 0)
    confidences = torch.where(keep, confidences, 0.0)
    if limit < slots:
        confidences = F.pad(confidences, (0, slots - limit))
        boxes = F.pad(boxes, (0, 0, 0, slots - limit))
    best, chosen = confidences.sort(dim=1, descending=True, stable=True)
    best, chosen = best[:, :slots], chosen[:, :slots]
    valid = best > 0
    kept = boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
    return Boxes(torch.where(valid[..., None], kept, 0.0), best, valid)
