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

"""Things that no one taught the robot: a table of kinds and their makers."""

from __future__ import annotations

from collections.abc import Callable

from numpy.random import Generator

from ood_perception.simulation.household import (
    barrel,
    cart,
    chair,
    crate,
    ladder,
    plant_pot,
    sofa,
    suitcase,
)
from ood_perception.simulation.shapes import Part
from ood_perception.simulation.strays import animal, bag, ball, cones, machine, rock, tyre

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
