# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of the report: image with the true outlines, beside it heatmap and found outlines."""

from __future__ import annotations

import csv
import functools
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_evaluation.frame import Frame
from ood_evaluation.label_files import read_label
from ood_perception.bags.files import read_picture
from ood_perception.drawing import draw
from ood_perception.frames.picture import encode
from ood_perception.labels import Label

if TYPE_CHECKING:
    from ood_perception.pipeline import Pipeline

PHOTOGRAPHS = Path(__file__).parent / 'photographs'
"""Free photographs of real unknown things, no shipped weights were trained on them."""

WIDTH = 480
"""Pixels of each half of a panel."""

TRUTH = (0, 230, 118)


def panel(frame: Frame) -> NDArray[np.uint8]:
    """
    Image with the true outlines in green; the same with heatmap and found outlines in white.

    Returns:
        uint8 (h, 2 * WIDTH, 3) RGB.

    Raises:
        ValueError: the image cannot be read.
    """
    assert frame.image is not None
    image = frame.image()
    height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
    image = _resized(image, height, cv2.INTER_AREA)
    truth = frame.truth
    if truth is None and frame.anomaly is not None:
        truth = frame.anomaly == 1
    ids = [
        None if i is None else _resized(np.asarray(i, np.uint16), height, cv2.INTER_NEAREST)
        for i in (truth, frame.instances)
    ]
    heatmap = frame.heatmap
    if heatmap is not None:
        heatmap = _resized(heatmap, height, cv2.INTER_LINEAR)
    return np.hstack(
        [draw(image, None, ids[0], colour=TRUTH), draw(image, heatmap, ids[1], alpha=0.65)]
    )


def _resized(pixels: NDArray[Any], height: int, how: int) -> NDArray[Any]:
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), (WIDTH, height), interpolation=how))


def jpeg_uri(picture: NDArray[np.uint8], quality: int = 82) -> str:
    """RGB picture as a data: address."""
    return 'data:image/jpeg;base64,' + b64encode(encode(picture, '.jpg', quality)).decode()


def photograph_panels(pipeline: Pipeline) -> list[tuple[str, NDArray[np.uint8]]]:
    """Run a pipeline on the photographs: caption with the credit, and `panel`, of each."""
    found = []
    with (PHOTOGRAPHS / 'CREDITS.csv').open(newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
            path = PHOTOGRAPHS / row['file']
            image = read_picture(path).rgb
            unknown = read_label(path.with_suffix('.png')) == Label.UNKNOWN
            pipeline.reset()
            (result,) = pipeline(image)
            frame = Frame(
                0,
                heatmap=result.heatmap,
                instances=result.instances,
                truth=cv2.connectedComponents(unknown.astype(np.uint8))[1],
                image=functools.partial(np.array, image),
            )
            found.append((f'{row["shows"]} ({row["credit"]}, {row["licence"]})', panel(frame)))
    return found
