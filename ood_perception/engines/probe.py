# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Real frames to try engines on: three of a rendered drive, with unknown objects on the road."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ood_perception.engines.base import Shape
from ood_perception.frames.transfer import normalise
from ood_perception.models.output import InputSpec

FOLDER = Path(__file__).parent / 'probe_frames'
"""JPEGs of 480x360, `ProvingGround(seed=1042, width=480, height=360)`, frames 0, 195 and 225."""


@functools.cache
def probe_frames() -> tuple[NDArray[np.uint8], ...]:
    """Return the frames, uint8 (360, 480, 3) RGB."""
    paths = sorted(FOLDER.glob('*.jpg'))
    return tuple(
        np.asarray(cv2.imread(str(path))[..., ::-1], np.uint8, order='C') for path in paths
    )


def probe_frame(height: int, width: int) -> NDArray[np.uint8]:
    """Return the first frame, uint8 (height, width, 3) RGB; it shows unknown objects."""
    return np.asarray(cv2.resize(probe_frames()[0], (width, height)), np.uint8)


def prober(spec: InputSpec, device: torch.device) -> Callable[[Shape], Tensor]:
    """Return a function from a shape to images of that shape, as `spec` wants them, of frames."""

    def probe(shape: Shape) -> Tensor:
        frames = probe_frames()
        images = torch.stack(
            [torch.from_numpy(frames[i % len(frames)]).permute(2, 0, 1) for i in range(shape[0])]
        )
        resized = F.interpolate(images.float(), shape[2:], mode='bilinear', antialias=True)
        return normalise(resized.round_().clamp_(0, 255).to(torch.uint8).to(device), spec)

    return probe
