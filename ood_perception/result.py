# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What one frame yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

NO_CLASS = 255
"""Value of `Result.semantic` where the segmentor gives no class."""

SURROUNDINGS = ('none', 'on_road', 'beside', 'in_air')
"""Names of the codes in `Result.surroundings`."""

ROWS = ('boxes', 'confidences', 'ids', 'areas', 'mean_scores', 'surroundings')
"""Fields of a result with one row an object."""


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
        confidences: float32 (N,), 0..1, that the box holds an unknown object.
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
    confidences: Any = None
    ids: Any = None
    areas: Any = None
    mean_scores: Any = None
    surroundings: Any = None
    semantic: Any = None
    timings: dict[str, float] = field(default_factory=dict)

    def keep(self, rows: list[int]) -> None:
        """Leave out all objects but those of some rows."""
        for name in ROWS:
            values = getattr(self, name)
            setattr(self, name, None if values is None else values[rows])

    @property
    def box_scores(self) -> Any:
        """Old name of `confidences`, for one release."""
        return self.confidences


class FramesFailed(RuntimeError):
    """
    Some frames of a batch could not be processed, others could.

    Attributes:
        results: one for each frame, in order; None where it failed.
        errors: one for each frame, in order; None where it did not fail.
    """

    def __init__(self, outcomes: Sequence[Result | Exception]) -> None:
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        super().__init__(f'{len(failed)} of {len(outcomes)} frames failed: {failed[0]}')
        self.results = [None if isinstance(o, Exception) else o for o in outcomes]
        self.errors = [o if isinstance(o, Exception) else None for o in outcomes]
