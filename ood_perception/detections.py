# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Found objects as JSON: one vocabulary for the node, `ood run` and bags of outputs.

| key | unit | what |
|---|---|---|
| `id` | | value of the object's pixels in the instances image, 1..65535 |
| `class_id` | | always 'unknown': no class is named |
| `confidence` | 0..1 | how sure it is that the box holds an unknown object |
| `mean_score` | of the score | mean of the raw pixel score over the object |
| `box_xyxy` | pixels | left, top, right, bottom edge in the camera image |
| `area_px` | pixels | of the object in the camera image |
| `surroundings` | | 'none', 'on_road', 'beside' or 'in_air' |
| `position`, `size`, `distance` | metres | only where depth is known, see `ros.depth.Place` |

Bags of outputs hold what an evaluation keeps of an object: `id` and `confidence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ood_perception.result import SURROUNDINGS, Result

CLASS_ID = 'unknown'  # class_id of every detection: no class is named


def detection_json(
    number: int,
    confidence: float,
    mean_score: float | None = None,
    box: Sequence[float] | None = None,
    area: int | None = None,
    surroundings: str | None = None,
) -> dict[str, Any]:
    """
    One object under the keys of the module's table; what is None is left out.

    Args:
        confidence: 0..1.
        mean_score: in the score's own unit.
        box: x1, y1, x2, y2 in pixels of the camera image.
        surroundings: entry of `result.SURROUNDINGS`.
    """
    row = {
        'id': int(number),
        'class_id': CLASS_ID,
        'confidence': round(float(confidence), 4),
        'mean_score': None if mean_score is None else round(float(mean_score), 4),
        'box_xyxy': None if box is None else [round(float(side), 2) for side in box],
        'area_px': None if area is None else int(area),
        'surroundings': surroundings,
    }
    return {key: value for key, value in row.items() if value is not None}


def detections_json(result: Result) -> list[dict[str, Any]]:
    """List the objects of a result on the host, see `detection_json`; most confident first."""
    if result.boxes is None:
        return []
    rows = zip(
        result.ids,
        result.confidences,
        result.mean_scores,
        np.asarray(result.boxes),
        result.areas,
        result.surroundings,
        strict=True,
    )
    return [
        detection_json(number, confidence, mean, box, area, SURROUNDINGS[around])
        for number, confidence, mean, box, area, around in rows
    ]


def confidence_of(row: dict[str, Any]) -> float:
    """Confidence in a detection's JSON, also under its old name `score`."""
    return float(row['confidence'] if 'confidence' in row else row['score'])
