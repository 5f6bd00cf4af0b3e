# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Things that a segmentor is taught: a table of kinds, their makers and class ids."""

from __future__ import annotations

from collections.abc import Callable

from ood_simulation.people import cyclist, person
from ood_simulation.shapes import Part
from ood_simulation.street import lamp_post, sign, tree
from ood_simulation.vehicles import car
from ood_simulation.vocabulary import BICYCLIST, CAR, PERSON, POLE, SIGN, TREE

KNOWN: dict[str, tuple[Callable[..., list[Part]], int]] = {
    'car': (car, CAR),
    'person': (person, PERSON),
    'cyclist': (cyclist, BICYCLIST),
    'tree': (tree, TREE),
    'lamp_post': (lamp_post, POLE),
    'sign': (sign, SIGN),
}
"""Kind -> (function that makes its parts, class id)."""
