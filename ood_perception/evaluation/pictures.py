# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of the report: image with the true outlines, beside it heatmap and found outlines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ood_perception.evaluation.evaluator import Frame

WIDTH = 480
"""Pixels of each half of a panel."""

TRUTH = (0, 230, 118)
FOUND = (255, 255, 255)


def panel(frame: Frame) -> NDArray[np.uint8]:
    """
    Image with the true outlines in green; the same with heatmap and found outlines in white.

    Returns:
        uint8 (h, 2 * WIDTH, 3) RGB.

    Raises:
        ValueError: the image cannot be read, or sizes differ.

    """
    assert frame.image is not None
    image = np.ascontiguousarray(frame.image())
    left, right = image.copy(), image.copy()
    if frame.heatmap is not None:
        heatmap: Any = np.ascontiguousarray(frame.heatmap)
        if heatmap.shape != image.shape[:2]:
            heatmap = cv2.resize(heatmap, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        colours = cv2.cvtColor(cv2.applyColorMap(heatmap, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
        weight = 0.65 * np.clip((heatmap.astype(np.float32) - 16) / 112, 0, 1)[..., None]
        right = np.rint(right * (1 - weight) + colours * weight).astype(np.uint8)
    truth = frame.truth
    if truth is None and frame.anomaly is not None:
        truth = frame.anomaly == 1
    if truth is not None:
        left[_edge(truth, image.shape[:2])] = TRUTH
    if frame.instances is not None:
        right[_edge(frame.instances, image.shape[:2])] = FOUND
    both = np.hstack([left, right])
    height = max(1, round(both.shape[0] * 2 * WIDTH / both.shape[1]))
    return np.asarray(
        cv2.resize(both, (2 * WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8
    )


def jpeg_uri(picture: NDArray[np.uint8], quality: int = 82) -> str:
    """RGB picture as a data: address."""
    from base64 import b64encode

    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, data = cv2.imencode('.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return 'data:image/jpeg;base64,' + b64encode(data.tobytes()).decode()


def _edge(ids: Any, size: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels where an id map changes, three pixels wide, on the side that is an object."""
    ids = np.ascontiguousarray(ids).astype(np.uint16)
    if ids.shape != size:
        ids = cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST)
    kernel = np.ones((3, 3), np.uint8)
    inner = cv2.erode(ids, kernel) != cv2.dilate(ids, kernel)
    return cv2.dilate(inner.astype(np.uint8), kernel).astype(bool) & (ids > 0)
