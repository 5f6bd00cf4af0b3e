# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What one frame yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

NO_CLASS = 255  # value of `Result.semantic` where the segmentor gives no class
SURROUNDINGS = ('none', 'on_road', 'beside', 'in_air')  # of `Result.surroundings`


@dataclass(slots=True)
class Result:
    """
    Everything that a `Pipeline` found in one frame of (H, W) pixels.

    Arrays are numpy arrays on the host, or torch tensors on the pipeline's device when the
    pipeline was called with ``as_tensors=True``. A field that was not asked for is None.
    """

    score: Any = None  # float32 (H, W), higher = more unknown, in its own unit (LLR: nats)
    heatmap: Any = None  # uint8 (H, W), 0..255 = calibrated probability 0..1 of being unknown
    instances: Any = None  # uint16 (H, W), 0 = none, otherwise the id of the pixel's object
    boxes: Any = None  # float32 (N, 4), XYXY pixels of the input image, one row an instance
    confidences: Any = None  # float32 (N,), 0..1, that the box holds an unknown object
    ids: Any = None  # int32 (N,), of the rows in `instances`; with tracking, of an object for good
    areas: Any = None  # int32 (N,), pixels of each instance
    mean_scores: Any = None  # float32 (N,), mean of `score` over each instance
    surroundings: Any = None  # uint8 (N,), index into `SURROUNDINGS`
    semantic: Any = None  # uint8 (H, W), class ids of the segmentor, 255 = none
    timings: dict[str, float] = field(default_factory=dict)  # milliseconds per stage

    @property
    def box_scores(self) -> Any:
        """Old name of `confidences`, for one release."""
        return self.confidences


class FramesFailed(RuntimeError):
    """
    Some frames of a batch could not be processed, others could.

    `results` and `errors` have one entry a frame, in order; one of the two is None.
    """

    def __init__(
        self, results: Sequence[Result | None], errors: Sequence[Exception | None]
    ) -> None:
        failed = [error for error in errors if error is not None]
        super().__init__(f'{len(failed)} of {len(errors)} frames failed: {failed[0]}')
        self.results = list(results)
        self.errors = list(errors)
