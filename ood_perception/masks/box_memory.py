# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Memory of boxes: where earlier frames of a camera saw an object joins what the present one says.

A detector's boxes jump by some pixels from frame to frame, and the outline in them jumps with
them. A box that was there before, moved to the present frame by optical flow, is averaged with the
present one. The memory also knows how sure anybody ever was of an object: one that is far from
counting needs no outline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.frames.flow import Way
from ood_perception.masks.boxes import Boxes, overlaps

SECONDS = 0.3  # after which an earlier box weighs 1 / e of its first weight
SAME = 0.4  # overlap of boxes from which they are averaged
KNOWN = 0.1  # overlap of boxes from which they are of one object, as in `tracking.Tracker`


class _Past(NamedTuple):
    boxes: Tensor  # float32 (K, 4) XYXY pixels; last what a frame missed that the one before had
    weight: Tensor  # float32 (K,), of as many frames' boxes as are averaged in each
    best: Tensor  # float32 (K,), 0..1, largest confidence of the object so far


class BoxMemory:
    """
    Joins the boxes of each frame with those of its camera's earlier frames.

    Args:
        least: confidence 0..1 that an object must have had once to be outlined in a frame that
            follows another one.

    """

    def __init__(self, least: float = 0.0) -> None:
        self.least = least
        self._past: dict[str, _Past] = {}

    def __call__(
        self,
        found: Boxes,
        size: tuple[int, int],
        ways: Sequence[Way | None],
        streams: Sequence[str],
    ) -> Boxes:
        """
        Join the boxes of a batch with the past, and keep them.

        Args:
            found: of the frames, in pixels of `size`.
            size: (H, W) of the maps.
            ways: of the frames since the last one of their camera; None where that is long ago,
                or there is none: such a frame's boxes are returned as they are.
            streams: names of the cameras.

        """
        rows = zip(*found, ways, streams, strict=True)
        joined = [self._join(*row[:3], size, *row[3:]) for row in rows]
        return Boxes(*(torch.stack(parts) for parts in zip(*joined, strict=True)))

    def _join(
        self,
        boxes: Tensor,
        confidences: Tensor,
        valid: Tensor,
        size: tuple[int, int],
        way: Way | None,
        stream: str,
    ) -> tuple[Tensor, Tensor, Tensor]:
        past = self._past.get(stream)
        now = known = _Past(boxes, torch.ones_like(confidences), confidences)
        if way is None:
            self._past[stream] = known
            return boxes, confidences, valid
        if past is not None and len(past.boxes) and len(boxes):
            now, missed = _averaged(now, past, way, size)
            known = _Past(*(torch.cat(pair) for pair in zip(now, missed, strict=True)))
        shown = valid & (now.best >= self.least)
        self._past[stream] = known
        order = (~shown).to(torch.uint8).argsort(stable=True)
        return (now.boxes * shown[:, None])[order], (confidences * shown)[order], shown[order]

    def reset(self, stream: str | None = None) -> None:
        """Forget one camera's past, or that of all."""
        if stream is None:
            self._past.clear()
        else:
            self._past.pop(stream, None)


def _averaged(now: _Past, past: _Past, way: Way, size: tuple[int, int]) -> tuple[_Past, _Past]:
    """Average boxes with earlier ones; and those that the last frame had, but not this one."""
    fade, count = math.exp(-way.age / SECONDS), len(now.boxes)
    last = _Past(*(part[:count] for part in past))
    ways = _moved(torch.cat([now.boxes, last.boxes]), way.flow, size)
    before = now.boxes + ways[:count]
    overlap = overlaps(before, past.boxes)[0]
    most, which = overlap.max(1)
    weight = 1 + torch.where(most >= SAME, past.weight[which] * fade, 0.0)
    boxes = now.boxes + (past.boxes[which] - before) * (1 - 1 / weight)[:, None]
    best = torch.where(most >= KNOWN, torch.maximum(now.best, past.best[which]), now.best)
    missed = ~(overlap[:, :count] >= KNOWN).any(0)
    # The flow leads back; it is nearly the same where it leads from and to.
    there = (last.boxes - ways[count:]) * missed[:, None]
    return _Past(boxes, weight, best), _Past(there, last.weight * fade, last.best)


def _moved(boxes: Tensor, flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Way of each box (K, 4), the median of nine places in it, in pixels of `size`: (K, 4)."""
    (high, wide), (rows, columns) = size, flow.shape[1:]
    share = torch.arange(1, 4, device=boxes.device) / 4
    x, y = (boxes[:, i, None] + share * (boxes[:, i + 2] - boxes[:, i])[:, None] for i in (0, 1))
    # -1..1 from border to border
    across = (x * (2 / wide) - 1)[:, None].expand(-1, 3, -1)
    down = (y * (2 / high) - 1)[..., None].expand(-1, -1, 3)
    places = torch.stack([across, down], 3).flatten(1, 2)[None]
    there = F.grid_sample(flow[None], places, 'bilinear', 'border', False)[0].median(2)[0]
    return torch.stack([there[0] * (wide / columns), there[1] * (high / rows)] * 2, 1)
