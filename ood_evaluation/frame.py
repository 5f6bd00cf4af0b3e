# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What is evaluated: one frame's outputs beside its labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.frames.zones import inside, mostly_inside


@dataclass(slots=True)
class Frame:
    """One frame's outputs and labels; what there is not is None."""

    stamp_ns: int  # of the image
    stream: str = ''  # name of the sequence it belongs to
    score: NDArray[Any] | None = None  # (H, W), higher = more unknown; None takes the heatmap
    heatmap: NDArray[np.uint8] | None = None  # uint8 (H, W), 0..255 = probability
    instances: NDArray[Any] | None = None  # (H, W) predicted ids, 0 = none
    confidences: dict[int, float] | None = None  # of predicted ids, 0..1
    anomaly: NDArray[np.uint8] | None = None  # (H, W), 0 known, 1 unknown, 255 ignore
    truth: NDArray[Any] | None = None  # (H, W) true ids, 0 = none
    # from sending the image to receiving its outputs; nan = unknown
    latency_ms: float = float('nan')
    # function that reads the uint8 (H, W, 3) RGB image when it is to be shown
    image: Callable[[], NDArray[np.uint8]] | None = None
    # float (H, W), metres along the camera's axis, nan or 0 = unknown
    distance: NDArray[np.floating] | None = None
    # of true ids in metres, where no image of distances is needed
    distances: dict[int, float] | None = None


def leave_out(frame: Frame, zones: tuple[str, ...]) -> None:
    """
    Take zones out of a frame: their labels are ignored, objects mostly in them are none.

    Raises:
        ValueError: a zone is no polygon or leaves the image.
    """
    for name, void in (('anomaly', 255), ('heatmap', 0), ('instances', 0), ('truth', 0)):
        pixels = getattr(frame, name)
        if pixels is None:
            continue
        left_out = inside(zones, *pixels.shape)
        if name in ('instances', 'truth'):
            left_out = np.isin(pixels, mostly_inside(pixels, left_out))
        setattr(frame, name, np.where(left_out, np.uint8(void), pixels))
