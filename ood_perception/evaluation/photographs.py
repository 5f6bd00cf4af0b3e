# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
A few free photographs of real unknown things, for the demo's report.

They come with the package, each with its credit and licence (photographs/CREDITS.csv, CC BY), and
no shipped weights were trained on them.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.evaluation.frame import Frame
from ood_perception.evaluation.pictures import panel
from ood_perception.labels import Label
from ood_perception.pipeline import Pipeline

FOLDER = Path(__file__).parents[1] / 'photographs'


def panels(
    pipeline: Pipeline, on_each: Callable[[int], object] = lambda done: None
) -> list[tuple[str, NDArray[np.uint8]]]:
    """
    Run a pipeline on the photographs.

    Args:
        pipeline: finds the unknown things.
        on_each: called with the number of photographs done.

    Returns:
        Caption with the credit, and the picture of `pictures.panel`, of every photograph.

    """
    found = []
    with (FOLDER / 'CREDITS.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows, 1):
        image = _read(FOLDER / row['file'], cv2.IMREAD_COLOR)[..., ::-1]
        unknown = _read((FOLDER / row['file']).with_suffix('.png'), cv2.IMREAD_GRAYSCALE)
        pipeline.reset()
        (result,) = pipeline(np.ascontiguousarray(image))
        frame = Frame(
            0,
            heatmap=result.heatmap,
            instances=result.instances,
            truth=cv2.connectedComponents((unknown == Label.UNKNOWN).astype(np.uint8))[1],
            image=functools.partial(np.array, image),
        )
        found.append((f'{row["shows"]} ({row["credit"]}, {row["licence"]})', panel(frame)))
        on_each(number)
    return found


def _read(path: Path, how: int) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), how)
    assert picture is not None, path
    return picture.astype(np.uint8, copy=False)
