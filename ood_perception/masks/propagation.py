# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Propagation: the newest detection moved to the present frame by optical flow.

A detection of frame t is there when the camera is already at t + k. `Propagator` computes the flow
between those two frames and moves heatmap and instances along. An object moves as a whole, by the
similarity that fits its pixels best (see `motion`); what cannot be followed there and back is
dropped.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.flow import Flow, Grey, flow_between, grey_picture, grid, returns, small
from ood_perception.masks.motion import motion_of, refined
from ood_perception.result import Result

MOST_STEPS = 6  # frames over which the flow is followed when a detection comes late
KEPT = 64  # frames that wait for their detection

Flows = tuple[Flow, Flow, NDArray[np.bool_]]  # of `flow_between`


def move_map(
    values: NDArray[np.uint8] | NDArray[np.float32], backward: Flow, followed: NDArray[np.bool_]
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """
    Move a map (H, W) to the present frame; what cannot be followed becomes 0.

    `backward` is float32 (h, w, 2), from the present frame to the earlier one in pixels of (h, w),
    `followed` bool (h, w), pixels of the present frame that have a place in the earlier one.
    """
    height, width = values.shape
    scale = np.array([width / backward.shape[1], height / backward.shape[0]], np.float32)
    way = cv2.resize(backward, (width, height), interpolation=cv2.INTER_LINEAR) * scale
    x, y = grid(height, width)
    moved = cv2.remap(values, x + way[..., 0], y + way[..., 1], cv2.INTER_LINEAR)
    trusted = cv2.resize(
        followed.astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR
    )
    moved[trusted == 0] = 0
    return np.asarray(moved)


def propagate(result: Result, a: Grey, b: Grey, flows: Flows | None = None) -> Result:
    """
    Move what was found in an earlier frame to the present one.

    `a` and `b` are the frames' `grey_picture`, `flows` the :func:`flow_between` of their `small`.
    The result has the same ids, without the objects that were lost, and neither `score` nor
    `semantic`: they were not computed for this frame.
    """
    moved = dataclasses.replace(result, score=None, semantic=None)
    objects = result.ids is not None and len(result.ids) > 0
    if result.heatmap is None and not objects:
        return moved
    forward, backward, followed = flow_between(small(a), small(b)) if flows is None else flows
    if result.heatmap is not None:
        moved.heatmap = move_map(result.heatmap, backward, returns(backward, forward))
    if objects:
        _move_objects(moved, a, b, forward, followed)
    return moved


def _move_objects(
    result: Result, a: Grey, b: Grey, forward: Flow, followed: NDArray[np.bool_]
) -> None:
    """Move the instances of a result in place; rows of what is lost go."""
    before = result.instances
    after = np.zeros_like(before)
    height, width = before.shape
    rows, boxes, areas = [], [], []
    for row, name in enumerate(result.ids):
        mask = (before == name).astype(np.uint8)
        matrix = motion_of(mask, forward, followed)
        if matrix is None:
            continue
        box = left, top, wide, high = cv2.boundingRect(mask)
        inside = mask[top : top + high, left : left + wide]
        matrix = refined(matrix, inside, (left, top), before.shape, a, b)
        x, y, w, h = _part(box, matrix, width, height)
        if w < 1 or h < 1:  # it left the frame
            continue
        matrix[:, 2] -= x, y
        inside = cv2.warpAffine(mask * 255, matrix, (w, h), flags=cv2.INTER_LINEAR) > 127
        left, top, wide, high = cv2.boundingRect(inside.astype(np.uint8))
        if not wide:
            continue
        after[y : y + h, x : x + w][inside] = name
        rows.append(row)
        boxes.append([x + left, y + top, x + left + wide, y + top + high])
        areas.append(int(inside.sum()))
    result.instances = after
    result.keep(rows)
    result.boxes = np.array(boxes, np.float32).reshape(-1, 4)
    result.areas = np.array(areas, np.int32)


def _part(
    box: Sequence[int], matrix: NDArray[np.float64], width: int, height: int
) -> tuple[int, int, int, int]:
    """Part (x, y, w, h) of the frame in which a box (x, y, w, h) lies after its motion."""
    x, y, w, h = box
    corners = np.array([[x, y, 1], [x + w, y, 1], [x, y + h, 1], [x + w, y + h, 1]]) @ matrix.T
    x1, y1 = np.floor(corners.min(0)).astype(int) - 1
    x2, y2 = np.ceil(corners.max(0)).astype(int) + 1
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    return int(x1), int(y1), int(x2 - x1), int(y2 - y1)


class Propagator:
    """Carries one camera's newest detection along."""

    def __init__(self) -> None:
        self._greys: OrderedDict[int, Grey] = OrderedDict()
        self._found: Result | None = None
        self._at: Grey | None = None
        self._stamp = 0
        self._flows: Flows | None = None
        self._followed_to = 0

    def saw(self, stamp: int, image: NDArray[np.uint8]) -> None:
        """Keep the frame uint8 (H, W, 3) RGB of `stamp` in ns, grey."""
        self._greys[stamp] = grey_picture(image)
        while len(self._greys) > KEPT:
            self._greys.popitem(last=False)

    def found(self, stamp: int, result: Result) -> None:
        """Take the detection of the frame of `stamp`; one of an unknown frame is ignored."""
        grey = self._greys.get(stamp)
        if grey is None:
            return
        self._found, self._at, self._stamp = result, grey, stamp
        self._flows, self._followed_to = None, stamp
        for old in [kept for kept in self._greys if kept < stamp]:
            del self._greys[old]

    def at(self, stamp: int) -> Result | None:
        """What the newest detection says of the frame of `stamp`, None where there is none yet."""
        grey = self._greys.get(stamp)
        if self._found is None or self._at is None or grey is None:
            return None
        if grey.shape != self._at.shape:
            return None
        if stamp == self._stamp:
            return self._found
        return propagate(self._found, self._at, grey, self._flows_to(stamp))

    def _flows_to(self, stamp: int) -> Flows:
        """Flows between the detection and a frame, followed over the frames between."""
        assert self._at is not None
        if stamp < self._followed_to:
            self._flows, self._followed_to = None, self._stamp
        ahead = sorted(s for s in self._greys if self._followed_to < s <= stamp)
        step = max(-(-len(ahead) // MOST_STEPS), 1)
        for kept in ahead[::-1][::step][::-1]:
            if self._greys[kept].shape != self._at.shape:
                continue
            start = None if self._flows is None else self._flows[:2]
            self._flows = flow_between(small(self._at), small(self._greys[kept]), start)
        self._followed_to = stamp
        assert self._flows is not None
        return self._flows

    def reset(self) -> None:
        """Forget everything: a jump in time, another camera."""
        self._greys.clear()
        self._found = self._at = None
