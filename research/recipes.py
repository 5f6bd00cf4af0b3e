# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Published recipes of samples, beside those of `ood_training.recipes`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ood_training.checkpointing import TrainingError
from ood_training.data import Array, Objects, Recipe
from ood_training.recipes import RECIPES as USER_RECIPES
from research.published_exposure import UemAugmentation, anomaly_mix, rpl_mix

Make = Callable[..., Recipe]


def _uem(objects: Objects | None, **options: Any) -> Recipe:
    """Augment as both UEM stages do; options of `UemAugmentation`."""
    return UemAugmentation(**_tuples(options))


def _uem_mix(objects: Objects | None, probability: float = 0.2, **options: Any) -> Recipe:
    """Paste as Anomaly Mix does, then augment."""
    augment, source = UemAugmentation(**_tuples(options)), _needed(objects, 'uem_mix')

    def recipe(rng: np.random.Generator, image: Array, label: Array) -> tuple[Array, Array]:
        return augment(rng, *anomaly_mix(rng, image, label, source, probability))

    return recipe


def _rpl(objects: Objects | None, **options: Any) -> Recipe:
    """Crop, mirror and paste as S2M and RPL do; options of `rpl_mix`."""
    source = _needed(objects, 'rpl')

    def recipe(rng: np.random.Generator, image: Array, label: Array) -> tuple[Array, Array]:
        image, label = rpl_mix(rng, image, label, source, **options)
        return np.ascontiguousarray(image), np.ascontiguousarray(label)

    return recipe


RECIPES: dict[str, Make] = {**USER_RECIPES, 'uem': _uem, 'uem_mix': _uem_mix, 'rpl': _rpl}
"""Name -> function (objects, **options) that makes the recipe."""


def _needed(objects: Objects | None, recipe: str) -> Objects:
    if objects is None or not len(objects):
        raise TrainingError(f'recipe {recipe} pastes unknown objects: give --objects')
    return objects


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
