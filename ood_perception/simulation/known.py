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

"""Things that a segmentor is taught: a table of kinds, their makers and class ids."""

from __future__ import annotations

from collections.abc import Callable

from ood_perception.simulation.people import cyclist, person
from ood_perception.simulation.shapes import Part
from ood_perception.simulation.street import lamp_post, sign, tree
from ood_perception.simulation.vehicles import car
from ood_perception.simulation.vocabulary import BICYCLIST, CAR, PERSON, POLE, SIGN, TREE

KNOWN: dict[str, tuple[Callable[..., list[Part]], int]] = {
    'car': (car, CAR),
    'person': (person, PERSON),
    'cyclist': (cyclist, BICYCLIST),
    'tree': (tree, TREE),
    'lamp_post': (lamp_post, POLE),
    'sign': (sign, SIGN),
}
"""Kind -> (function that makes its parts, class id)."""
