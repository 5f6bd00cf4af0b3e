# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""What one frame yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NO_CLASS = 255
"""Value of `Result.semantic` where the segmentor gives no class."""

SURROUNDINGS = ('none', 'on_road', 'beside', 'in_air')
"""Names of the codes in `Result.surroundings`."""


@dataclass(slots=True)
class Result:
    """
    Everything that a `Pipeline` found in one frame of (H, W) pixels.

    Arrays are numpy arrays on the host, or torch tensors on the pipeline's device when the
    pipeline was called with ``as_tensors=True``. A field that was not asked for is None.

    Attributes:
        score: float32 (H, W), higher = more unknown, in the score's own unit (LLR: nats).
        heatmap: uint8 (H, W), 0..255 = calibrated probability 0..1 of being unknown.
        instances: uint16 (H, W), 0 = none, otherwise the id of the object that owns the pixel.
        boxes: float32 (N, 4), XYXY pixels of the input image, one row an instance.
        box_scores: float32 (N,), 0..1, confidence that the box holds an unknown object.
        ids: int32 (N,), id of each row in `instances`; with tracking the same object keeps its id.
        areas: int32 (N,), pixels of each instance.
        mean_scores: float32 (N,), mean of `score` over each instance.
        surroundings: uint8 (N,), index into `SURROUNDINGS`.
        semantic: uint8 (H, W), class ids of the segmentor, 255 = none.
        timings: milliseconds per stage.

    """

    score: Any = None
    heatmap: Any = None
    instances: Any = None
    boxes: Any = None
    box_scores: Any = None
    ids: Any = None
    areas: Any = None
    mean_scores: Any = None
    surroundings: Any = None
    semantic: Any = None
    timings: dict[str, float] = field(default_factory=dict)
