# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Things that no one taught the robot: a table of kinds and their makers."""

from __future__ import annotations

from collections.abc import Callable

from numpy.random import Generator

from ood_simulation.household import (
    barrel,
    cart,
    chair,
    crate,
    ladder,
    plant_pot,
    sofa,
    suitcase,
)
from ood_simulation.shapes import Part
from ood_simulation.stray_objects import animal, bag, ball, cones, machine, rock, tyre

UNKNOWN: dict[str, tuple[Callable[[Generator], list[Part]], float]] = {
    'crate': (crate, 0.0),
    'barrel': (barrel, 0.0),
    'sofa': (sofa, 0.0),
    'chair': (chair, 0.0),
    'animal': (animal, 0.02),
    'tyre': (tyre, 0.0),
    'cones': (cones, 0.0),
    'ball': (ball, 0.0),
    'ladder': (ladder, 0.0),
    'suitcase': (suitcase, 0.0),
    'cart': (cart, 0.0),
    'plant_pot': (plant_pot, 0.0),
    'machine': (machine, 0.0),
    'rock': (rock, 0.09),
    'bag': (bag, 0.07),
}
"""Kind -> (function that makes its parts, roughness in metres of its outline)."""
