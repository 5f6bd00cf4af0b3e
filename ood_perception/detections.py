# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Found objects as rows and as JSON: one vocabulary for the node, `ood run` and bags of outputs.

| key | unit | what |
|---|---|---|
| `id` | | value of the object's pixels in the instances image, 1..65535 |
| `class_id` | | always 'unknown': no class is named |
| `confidence` | 0..1 | how sure it is that the box holds an unknown object |
| `mean_score` | of the score | mean of the raw pixel score over the object |
| `box_xyxy` | pixels | left, top, right, bottom edge in the camera image |
| `area_px` | pixels | of the object in the camera image |
| `surroundings` | | 'none', 'on_road', 'beside' or 'in_air' |
| `position`, `size`, `distance` | metres | only where depth is known, see `frames.depth.Place` |

Bags of outputs hold what an evaluation keeps of an object: `id` and `confidence`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ood_perception.result import SURROUNDINGS, Result

if TYPE_CHECKING:
    from ood_perception.frames.depth import Place

CLASS_ID = 'unknown'  # class_id of every detection: no class is named


@dataclass(slots=True)
class Detection:
    """One unknown object."""

    id: int  # value of its pixels in the instances image, 1..65535
    confidence: float  # 0..1, that it is unknown
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the camera image
    area: int = 0  # pixels
    mean_score: float = 0.0  # mean raw score over its pixels
    surroundings: str = SURROUNDINGS[0]  # 'none', 'on_road', 'beside' or 'in_air'
    place: Place | None = None  # where it is in 3D, or None without depth

    @property
    def label(self) -> str:
        """Id, confidence and, where it is known, distance, as drawn beside it."""
        metres = '' if self.place is None else f' {self.place.distance:.1f} m'
        return f'{self.id}: {self.confidence:.2f}{metres}'

    def json(self) -> dict[str, Any]:
        """Give what the module's table lists, rounded."""
        row = {
            'id': self.id,
            'class_id': CLASS_ID,
            'confidence': round(self.confidence, 4),
            'mean_score': round(self.mean_score, 4),
            'box_xyxy': [round(side, 2) for side in self.box],
            'area_px': self.area,
            'surroundings': self.surroundings,
        }
        if self.place is not None:
            row['position'] = [round(v, 4) for v in self.place.position]
            row['size'] = [round(v, 4) for v in self.place.size]
            row['distance'] = round(self.place.distance, 4)
        return row


def rows(result: Result) -> list[Detection]:
    """Rows of a result on the host; empty when it has no instances."""
    if result.boxes is None:
        return []
    found = []
    for i, box in enumerate(np.asarray(result.boxes, np.float64)):
        around = 0 if result.surroundings is None else int(result.surroundings[i])
        found.append(
            Detection(
                id=int(result.ids[i]),
                confidence=float(result.confidences[i]),
                box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                area=0 if result.areas is None else int(result.areas[i]),
                mean_score=0.0 if result.mean_scores is None else float(result.mean_scores[i]),
                surroundings=SURROUNDINGS[around],
            )
        )
    return found


def confidence_of(row: dict[str, Any]) -> float:
    """Confidence in a detection's JSON, also under its old name `score`."""
    return float(row['confidence'] if 'confidence' in row else row['score'])
