# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
How an object moved from one picture to another: as a whole, by a similarity.

The optical flow of the small pictures finds it, sparse flow (Lucas and Kanade) at the object's own
pixels makes it exact: a quarter of the size knows an outline to two pixels, the picture to half a
pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.flow import Flow, Grey

Motion = NDArray[np.float64]  # (2, 3), turn, scale and shift, from pixels to pixels

LEAST_FOLLOWED = 0.4  # share of an object's pixels that must be followed; else it is dropped
LEAST_PIXELS = 3  # followed pixels of the flow from which an object's motion is read
LEAST_FOR_SCALE = 12  # followed pixels from which also a change of size is read

POINTS = 60  # about so many places of an object are followed in the picture
WINDOW = 7  # pixels around each that are compared; a wider one sees the background of small things
HALVED = 40  # pixels of an object's longer side from which the pictures are halved to find it
REACH = 8.0  # pixels by which a motion may be off to start from,
GROWTH = 0.1  # and how many more for each pixel of the object's longer side
RETURNS = 0.5  # pixels by which a way there and back may miss its start
AGREED = 0.2  # share of the places that must be found again
EXACT = 0.7  # pixels by which a place may miss the motion of all


def motion_of(
    mask: NDArray[np.uint8], forward: Flow, followed: NDArray[np.bool_]
) -> Motion | None:
    """
    Find the similarity (turn, scale and shift) that moves an object best, None = it is lost.

    From uint8 (H, W), 1 at its pixels in the earlier frame, the flow from that frame to the
    present one, float32 (h, w, 2) in pixels of (h, w), and the pixels that were followed there and
    back, bool (h, w), to float64 (2, 3) in pixels of (H, W).
    """
    height, width = forward.shape[:2]
    share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    inside = share > 0.5 if (share > 0.5).sum() >= LEAST_PIXELS else share > 0
    good = inside & followed
    if good.sum() < max(LEAST_PIXELS, LEAST_FOLLOWED * inside.sum()):
        return None
    ys, xs = np.nonzero(good)
    # Places of the flow's pixels in the frame: centre to centre.
    factor = np.array([mask.shape[1] / width, mask.shape[0] / height], np.float32)
    before = (np.stack([xs, ys], 1).astype(np.float32) + 0.5) * factor - 0.5
    after = before + forward[ys, xs] * factor
    if len(before) >= LEAST_FOR_SCALE:
        matrix = _similarity(before, after, float(factor.max()) * 0.7)
        if matrix is not None:
            return matrix
    shift = np.median(after - before, axis=0)
    return np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)


def refined(
    motion: Motion,
    inside: NDArray[np.uint8],
    corner: Sequence[int] | NDArray[np.int64],
    size: Sequence[int],
    a: Grey,
    b: Grey,
) -> Motion:
    """
    Follow an object's own pixels from picture `a` to picture `b`, starting from a motion.

    Of the frame's `size`, (H, W), uint8 (h, w) is the part that begins at `corner`, x and y, and
    holds 1 where the object is in `a`. The pictures may have another size than the frame. Returns
    the motion as it was where too little is found again.
    """
    step = max(int(np.sqrt(cv2.countNonZero(inside) / POINTS)), 1)
    ys, xs = np.nonzero(inside[::step, ::step])
    if len(xs) < LEAST_PIXELS:
        return motion
    factor = np.array([size[1] / a.shape[1], size[0] / a.shape[0]])
    places = np.stack([xs, ys], 1) * step + corner
    begin = (places + 0.5) / factor - 0.5
    guess = (places @ motion[:, :2].T + motion[:, 2] + 0.5) / factor - 0.5
    side = float(np.ptp(begin, axis=0).max())
    reach, levels = REACH + GROWTH * side, int(side >= HALVED) + int(side >= 2 * HALVED)
    # Of two large pictures only the part that holds the object is looked at.
    ends = np.concatenate([begin, guess])
    left, top = np.maximum(ends.min(0) - reach - WINDOW, 0).astype(int)
    right, bottom = (ends.max(0) + reach + WINDOW + 1).astype(int)
    a, b = a[top:bottom, left:right], b[top:bottom, left:right]
    if min(a.shape) <= WINDOW:
        return motion
    begin, guess = ((part - (left, top)).astype(np.float32) for part in (begin, guess))
    end, there = _follow(a, b, begin, guess, levels)
    back, again = _follow(b, a, end, begin, levels)
    good = there & again & (np.abs(back - begin).max(1) < RETURNS)
    good &= np.abs(end - guess).max(1) < reach
    if good.sum() < max(LEAST_PIXELS, AGREED * len(places)):
        return motion
    before = places[good].astype(np.float32)
    after = ((end[good] + (left, top) + 0.5) * factor - 0.5).astype(np.float32)
    if good.sum() >= LEAST_FOR_SCALE:
        found = _similarity(before, after, EXACT * float(factor.max()))
        if found is not None:
            return found
    moved = motion.copy()
    moved[:, 2] += np.median(after - (before @ motion[:, :2].T + motion[:, 2]), axis=0)
    return moved


def _follow(
    a: Grey, b: Grey, begin: NDArray[np.float32], guess: NDArray[np.float32], levels: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Follow places (N, 2) from `a` to `b` from a guess: where they are, and which were found."""
    end, found, _ = cv2.calcOpticalFlowPyrLK(
        a,
        b,
        begin,
        guess.copy(),
        winSize=(WINDOW, WINDOW),
        maxLevel=levels,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03),
    )
    return np.asarray(end, np.float32), found[:, 0] > 0


def _similarity(
    before: NDArray[np.float32], after: NDArray[np.float32], miss: float
) -> Motion | None:
    """Find the similarity that brings places (N, 2) to others; None where it is not plausible."""
    matrix, _ = cv2.estimateAffinePartial2D(
        before, after, method=cv2.RANSAC, ransacReprojThreshold=miss
    )
    if matrix is None or not 0.5 < np.hypot(matrix[0, 0], matrix[0, 1]) < 2.0:
        return None
    return np.asarray(matrix)
