# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Class ids, and the colours that many things share."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from ood_simulation.textures import colour

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PERSON, BICYCLIST = range(11)
NONE = 255

BLACK = np.array([0.03, 0.03, 0.035], np.float32)
RUBBER = np.array([0.05, 0.05, 0.05], np.float32)
GLASS = np.array([0.08, 0.1, 0.12], np.float32)
STEEL = np.array([0.45, 0.46, 0.48], np.float32)


def grey(value: float) -> np.ndarray:
    """Neutral colour of a 0..1 value."""
    return np.full(3, value, np.float32)


def paint(rng: Generator) -> np.ndarray:
    """Car paint: mostly greys, at times strong colours."""
    if rng.random() < 0.5:
        return grey(float(rng.choice([0.03, 0.12, 0.3, 0.55, 0.8, 0.9]))) * rng.uniform(
            0.95, 1.05, 3
        ).astype(np.float32)
    return colour(rng, 1.0, (0.15, 0.85))
