# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Another view of the same street: scale, aspect, crop and mirror of a frame and its label."""

from __future__ import annotations

import cv2
import numpy as np

Array = np.ndarray

VOID = 255
"""Label of pixels that no loss sees."""


def random_view(
    rng: np.random.Generator,
    image: Array,
    label: Array,
    size: tuple[int, int] = (360, 480),
    nearest: float = 1.9,
    farthest: float = 0.55,
    towards: int | None = None,
    closer: float = 1.0,
) -> tuple[Array, Array]:
    """
    Cut a randomly scaled view of a fixed size out of a frame.

    Most views are closer than the frame, some show it whole, some are farther away: there the
    rest of the view mirrors the frame and its label is void.

    Args:
        rng: random numbers.
        image: uint8 (H, W, 3).
        label: uint8 (H, W).
        size: (height, width) of the view in pixels.
        nearest: largest scale against the frame that just fills the view.
        farthest: smallest scale, below 1.
        closer: factor on all scales, 1 or more: views of 0.8 times the frame's size and 1.25 here
            see four fifths of the frame's width at its own scale.
        towards: a label value; where the frame has it, the view holds at least one such pixel.

    Returns:
        image uint8 (*size, 3) and label uint8 size, both contiguous.

    """
    height, width = size
    fill = max(height / label.shape[0], width / label.shape[1])
    draw = rng.random()
    scale = 1.0
    if draw < 0.6:
        scale = float(np.exp(rng.uniform(0, np.log(nearest))))
    elif draw < 0.8:
        scale = float(np.exp(rng.uniform(np.log(farthest), 0)))
    scale *= closer
    tall = float(np.exp(rng.normal(0, 0.08)))
    new = (round(label.shape[1] * fill * scale), round(label.shape[0] * fill * scale * tall))
    if scale >= 1:
        new = max(new[0], width), max(new[1], height)
    smaller = new[0] < label.shape[1]
    way = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    image = cv2.resize(image, new, interpolation=way)
    label = cv2.resize(label, new, interpolation=cv2.INTER_NEAREST)
    image, label = _pad(rng, image, label, size)
    rows, columns = (0, label.shape[0] - height), (0, label.shape[1] - width)
    found = np.flatnonzero(label == towards) if towards is not None else ()
    if len(found):
        row, column = divmod(int(found[int(rng.integers(len(found)))]), label.shape[1])
        rows = max(row - height + 1, 0), min(row, rows[1])
        columns = max(column - width + 1, 0), min(column, columns[1])
    y, x = int(rng.integers(rows[0], rows[1] + 1)), int(rng.integers(columns[0], columns[1] + 1))
    image, label = image[y : y + height, x : x + width], label[y : y + height, x : x + width]
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    return image.copy(), label.copy()


def _pad(
    rng: np.random.Generator, image: Array, label: Array, size: tuple[int, int]
) -> tuple[Array, Array]:
    rows, columns = max(size[0] - label.shape[0], 0), max(size[1] - label.shape[1], 0)
    if not rows and not columns:
        return image, label
    top, left = int(rng.integers(0, rows + 1)), int(rng.integers(0, columns + 1))
    border = (top, rows - top, left, columns - left)
    image = cv2.copyMakeBorder(image, *border, cv2.BORDER_REFLECT_101)
    label = cv2.copyMakeBorder(label, *border, cv2.BORDER_CONSTANT, value=VOID)
    return image, label
