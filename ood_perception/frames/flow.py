# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Optical flow between two frames of a camera (OpenCV's DIS, Kroeger et al., ECCV 2016)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Grey = NDArray[np.uint8]
Flow = NDArray[np.float32]

LONGEST = 640  # pixels of the longer side of a frame in which objects are followed, at most
SCALE = 4  # of its pixels for one of the flow, along each side
TOLERANCE = 1.0  # pixels of the flow by which a way there and back may miss its start
RELATIVE_TOLERANCE = 0.05  # the same, as a share of the way's length


class Way(NamedTuple):
    """How the picture moved since the camera's last frame."""

    flow: Tensor  # float32 (2, h, w), x and y in pixels of (h, w) to a pixel's place in that frame
    age: float  # of that frame in seconds


def grey_picture(image: NDArray[np.uint8]) -> Grey:
    """Turn uint8 (H, W, 3) RGB into uint8 (h, w) grey, `LONGEST` pixels along a side at most."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    share = min(LONGEST / max(grey.shape), 1)
    height, width = (max(round(side * share), 1) for side in grey.shape)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA))


def small(grey: Grey) -> Grey:
    """Reduce a grey picture uint8 (h, w) by `SCALE` along each side, to at least 16x16."""
    height, width = (max(side // SCALE, 16) for side in grey.shape)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA))


def flow_between(
    a: Grey, b: Grey, start: tuple[Flow, Flow] | None = None
) -> tuple[Flow, Flow, NDArray[np.bool_]]:
    """
    Compute the optical flow of two grey pictures, uint8 (h, w), in both directions.

    `start` are the two flows from `a` to a frame shortly before `b` and back, to search from; a
    small thing that has gone far is found only so. Returns float32 (h, w, 2), (dx, dy) in pixels
    from each pixel of `a` to its place in `b`; the same from `b` to `a`; and :func:`returns`.
    """
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    dis.setFinestScale(0)  # the pictures are small already; a pixel of theirs is four of a frame
    there, back = (None, None) if start is None else (start[0].copy(), start[1].copy())
    forward = np.asarray(dis.calc(a, b, there))
    backward = np.asarray(dis.calc(b, a, back))
    return forward, backward, returns(forward, backward)


def returns(forward: Flow, backward: Flow) -> NDArray[np.bool_]:
    """Tell bool (h, w): which pixels `backward` brings back to where `forward` took them from."""
    height, width = forward.shape[:2]
    x, y = grid(height, width)
    there_x, there_y = x + forward[..., 0], y + forward[..., 1]
    back = cv2.remap(backward, there_x, there_y, cv2.INTER_LINEAR, borderValue=(1e3, 1e3))
    miss = np.linalg.norm(forward + back, axis=2)
    allowed = TOLERANCE + RELATIVE_TOLERANCE * np.linalg.norm(forward, axis=2)
    return np.asarray(miss <= allowed)


@functools.lru_cache(maxsize=16)
def grid(height: int, width: int) -> tuple[Flow, Flow]:
    """Return the x and the y of every pixel, float32 (height, width) each."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x, y
