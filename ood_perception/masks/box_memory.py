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
PLACES = 0.25, 0.5, 0.75  # shares of a box's sides at which the flow is read
SAME = 0.4  # overlap of boxes from which they are of one object


class _Past(NamedTuple):
    boxes: Tensor  # float32 (K, 4) XYXY pixels
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
        weight, best = torch.ones_like(confidences), confidences
        shown = valid
        if way is not None and past is not None and len(past.boxes) and len(boxes):
            before = boxes + _moved(boxes, way.flow, size)
            overlap, which = overlaps(before, past.boxes)[0].max(1)
            same = overlap >= SAME
            earlier = torch.where(same, past.weight[which] * math.exp(-way.age / SECONDS), 0.0)
            weight = 1 + earlier
            step = past.boxes[which] - before
            boxes = boxes + step * (earlier / weight)[:, None]
            best = torch.where(same, torch.maximum(best, past.best[which]), best)
        if way is not None:
            shown = valid & (best >= self.least)
        self._past[stream] = _Past(boxes, weight, best)
        order = (~shown).to(torch.uint8).argsort(stable=True)
        parts = boxes * shown[:, None], confidences * shown, shown
        return parts[0][order], parts[1][order], parts[2][order]

    def reset(self, stream: str | None = None) -> None:
        """Forget one camera's past, or that of all."""
        if stream is None:
            self._past.clear()
        else:
            self._past.pop(stream, None)


def _moved(boxes: Tensor, flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Way of each box (K, 4), the median of nine places in it, in pixels of `size`: (K, 4)."""
    sides = boxes.new_tensor(size[::-1])
    corner, extent = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
    shares = boxes.new_tensor([(x, y) for x in PLACES for y in PLACES])
    places = (corner + shares * extent) * 2 / sides - 1  # -1..1 from border to border
    there = F.grid_sample(flow[None], places[None], 'bilinear', 'border', False)[0].median(2)[0].T
    return (there * sides / sides.new_tensor(flow.shape[:0:-1])).repeat(1, 2)
