# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Memory of outlines: where an object was in earlier frames joins where the present one finds it.

A mask that is made anew for every frame flickers at its border, and shows now the whole, now a
part. The earlier outline, moved by the object's own motion, is averaged with the present one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.flow import Grey
from ood_perception.masks.boxes import pixels_of
from ood_perception.masks.motion import Motion, refined
from ood_perception.result import Result

SECONDS = 0.6  # after which an earlier outline weighs 1 / e of its first weight
FORGOTTEN = 0.02  # weight below which it is not worth following
SAME = 0.25  # overlap of the present outline and the earlier one from which they are averaged

Share = NDArray[np.float32]


class _Outline(NamedTuple):
    corner: NDArray[np.int64]  # (2,), x and y of the upper left pixel
    share: Share  # (h, w), 0..1, of the frames in which a pixel was the object's
    centre: NDArray[np.float64]  # (2,), of the object's box in the frame
    weight: float  # of as many frames
    motion: Motion  # of the object since the frame before, around its centre


class OutlineMemory:
    """Joins the outlines of one camera's objects with their own of earlier frames."""

    def __init__(self) -> None:
        self._outlines: dict[int, _Outline] = {}
        self._picture: Grey = np.zeros((0, 0), np.uint8)
        self._stamp = 0

    def __call__(self, result: Result, picture: Grey, stamp: int) -> None:
        """
        Join a result on the host, in place, and keep its outlines.

        Args:
            result: whose objects have ids that last; what owns no pixel any more is left out. Mean
                scores and surroundings stay those of the outline that this frame shows.
            picture: uint8 (h, w), the frame in grey, of any size.
            stamp: of the frame in ns.

        """
        labels, picture = result.instances, picture.copy()
        age = (stamp - self._stamp) / 1e9
        follows = age > 0 and picture.shape == self._picture.shape
        fade = math.exp(-age / SECONDS) if follows else 0.0
        before = self._outlines if fade >= FORGOTTEN else {}
        now = {}
        for name, box in zip(result.ids.tolist(), result.boxes.tolist(), strict=True):
            rows, columns = pixels_of(box)
            share = (labels[rows, columns] == name).astype(np.float32)
            corner = np.array([columns.start, rows.start])
            centre = np.array(box).reshape(2, 2).mean(0)
            now[name] = _Outline(corner, share, centre, 1.0, np.eye(2, 3))
            if name in before:
                earlier = before[name]._replace(weight=before[name].weight * fade)
                now[name] = self._joined(now[name], earlier, picture, labels.shape)
        self._outlines, self._picture, self._stamp = now, picture, stamp
        if before.keys() & now.keys():
            _paint(result, now)

    def reset(self) -> None:
        """Forget everything."""
        self._outlines = {}

    def _joined(
        self, now: _Outline, before: _Outline, picture: Grey, size: tuple[int, int]
    ) -> _Outline:
        """Average an outline with the earlier one, where that leads to it."""
        inside = (before.share > 0.5).view(np.uint8)
        # The box of a part has another centre than that of the whole: no sign of a motion.
        middle, turn = before.centre, before.motion[:, :2]
        for shift in (before.motion[:, 2], now.centre - middle):
            guess = np.c_[turn, middle + shift - turn @ middle]
            motion = refined(guess, inside, before.corner, size, self._picture, picture)
            if motion is not guess:
                break
        else:
            return now
        share, corner = _moved(before, motion, now, size)
        x, y = now.corner - corner
        present = np.zeros_like(share)
        present[y : y + len(now.share), x : x + len(now.share[0])] = now.share
        common = np.minimum(share, present).sum()
        if common < SAME * (share.sum() + present.sum() - common):
            return now
        present += before.weight * share
        weight = 1 + before.weight
        motion[:, 2] += motion[:, :2] @ middle - middle
        return _Outline(corner, present / weight, now.centre, weight, motion)


def _moved(
    before: _Outline, motion: Motion, now: _Outline, size: tuple[int, int]
) -> tuple[Share, NDArray[np.int64]]:
    """Move an outline: its share in a window that holds `now`, too, and the window's corner."""
    high, wide = before.share.shape
    corners = before.corner + np.array([[0, 0], [wide, 0], [0, high], [wide, high]])
    there = corners @ motion[:, :2].T + motion[:, 2]
    end = now.corner + now.share.shape[::-1]
    first = np.minimum(np.maximum(np.floor(there.min(0)).astype(int), 0), now.corner)
    last = np.maximum(np.minimum(np.ceil(there.max(0)).astype(int), size[::-1]), end)
    matrix = motion.copy()
    matrix[:, 2] += motion[:, :2] @ before.corner - first
    width, height = (last - first).tolist()
    return np.asarray(cv2.warpAffine(before.share, matrix, (width, height))), first


def _paint(result: Result, outlines: dict[int, _Outline]) -> None:
    """Draw outlines into a result: a pixel is that object's which has more than half, and most."""
    labels = np.zeros_like(result.instances)
    most = np.full(labels.shape, 0.5, np.float32)
    parts = {}
    for name, outline in outlines.items():
        x, y = outline.corner
        part = parts[name] = slice(y, y + len(outline.share)), slice(x, x + len(outline.share[0]))
        larger = outline.share > most[part]
        most[part][larger] = outline.share[larger]
        labels[part][larger] = name
    result.instances = labels
    kept, boxes, areas = [], [], []
    for row, (name, part) in enumerate(parts.items()):
        mine = (labels[part] == name).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mine)
        if width:
            x, y = x + part[1].start, y + part[0].start
            kept.append(row)
            boxes.append([x, y, x + width, y + height])
            areas.append(cv2.countNonZero(mine))
    if len(kept) < len(parts):
        result.keep(kept)
    result.boxes = np.array(boxes, np.float32).reshape(-1, 4)
    result.areas = np.array(areas, np.int32)
