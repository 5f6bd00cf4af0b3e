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
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.bags.files import read_label, read_picture
from ood_perception.evaluation.frame import Frame
from ood_perception.evaluation.pictures import panel
from ood_perception.labels import Label
from ood_perception.pipeline import Pipeline

FOLDER = Path(__file__).parents[1] / 'photographs'


def panels(pipeline: Pipeline) -> list[tuple[str, NDArray[np.uint8]]]:
    """
    Run a pipeline on the photographs.

    Returns:
        Caption with the credit, and the picture of `pictures.panel`, of every photograph.
    """
    found = []
    with (FOLDER / 'CREDITS.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        path = FOLDER / row['file']
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
