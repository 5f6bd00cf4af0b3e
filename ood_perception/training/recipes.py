# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Recipes of samples, by name: functions (rng, image, label) -> (image, label)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from ood_perception.labels import Label
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.data import Array, Recipe
from ood_perception.training.objects import Objects
from ood_perception.training.paste import paste

Rng = np.random.Generator


class Plain:
    """Leaves a pair as it is, padded (black, void) to sides that are a multiple of some pixels."""

    def __init__(self, objects: Objects | None = None, multiple: int = 1) -> None:
        self.multiple = multiple

    def __call__(self, rng: Rng, image: Array, label: Array) -> tuple[Array, Array]:
        """Return image uint8 (H, W, 3) and label uint8 (H, W)."""
        bottom, right = (-side % self.multiple for side in label.shape)
        edges = ((0, bottom), (0, right))
        return (
            np.pad(image, (*edges, (0, 0))),
            np.pad(label, edges, constant_values=int(Label.VOID)),
        )


class Paste:
    """
    Another view of a frame under another light, with up to `limit` unknown objects pasted in.

    Args:
        size: (height, width) of the views in pixels.
        scale: range of the factor on the largest scale at which the frame fits into a view.
        share: of the views that get an object.
        limit: objects of a view.

    Raises:
        TrainingError: no objects.
    """

    def __init__(
        self,
        objects: Objects | None,
        size: Sequence[int] = (360, 480),
        scale: Sequence[float] = (0.7, 2.0),
        share: float = 0.85,
        limit: int = 4,
    ) -> None:
        if objects is None or not len(objects):
            raise TrainingError('recipe paste pastes unknown objects: give --objects')
        self.objects, self.share, self.limit = objects, share, limit
        fill: dict[Any, int] = {tv_tensors.Image: 0, tv_tensors.Mask: int(Label.VOID)}
        self._view = v2.Compose(
            [
                v2.ScaleJitter(tuple(size), tuple(scale)),
                v2.RandomCrop(tuple(size), pad_if_needed=True, fill=fill),
                v2.RandomHorizontalFlip(),
            ]
        )
        self._camera = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.6, 0.03)], 0.8),
                v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.6))], 0.25),
                v2.RandomAdjustSharpness(2.0, 0.15),
                v2.RandomApply([v2.GaussianNoise(sigma=0.02)], 0.35),
                v2.RandomApply([v2.JPEG((30, 95))], 0.4),
            ]
        )
        self._object = v2.Compose(
            [v2.ColorJitter(0.35, 0.35, 0.5, 0.5), v2.RandomGrayscale(0.1)],
        )

    def __call__(self, rng: Rng, image: Array, label: Array) -> tuple[Array, Array]:
        """Return image uint8 (*size, 3) and label uint8 size."""
        with seeded(rng):
            view, mask = self._view(as_image(image), tv_tensors.Mask(torch.from_numpy(label)))
            image, label = as_array(view), mask.numpy().copy()
            count = int(rng.integers(1, self.limit + 1)) if rng.random() < self.share else 0
            for _ in range(count):
                rgba = self.objects.load(int(rng.integers(len(self.objects))))
                colour = as_array(self._object(as_image(rgba[..., :3])))
                rgba = np.dstack([colour, rgba[..., 3]])
                mirrored = rgba[:, ::-1] if rng.random() < 0.5 else rgba
                paste(rng, image, label, mirrored, Label.UNKNOWN)
            return as_array(self._camera(as_image(image))), label


class PasteOnly(Plain):
    """Pastes one or two unknown objects into a frame that is padded as by :class:`Plain`."""

    def __init__(self, objects: Objects | None, multiple: int = 1) -> None:
        super().__init__(objects, multiple)
        if objects is None or not len(objects):
            raise TrainingError('recipe paste_only pastes unknown objects: give --val-objects')
        self.objects = objects

    def __call__(self, rng: Rng, image: Array, label: Array) -> tuple[Array, Array]:
        """Return image uint8 (H, W, 3) and label uint8 (H, W)."""
        image, label = image.copy(), label.copy()
        for _ in range(int(rng.integers(1, 3))):
            rgba = self.objects.load(int(rng.integers(len(self.objects))))
            paste(rng, image, label, rgba, Label.UNKNOWN)
        return super().__call__(rng, image, label)


RECIPES: dict[str, Callable[..., Recipe]] = {
    'plain': Plain,
    'paste': Paste,
    'paste_only': PasteOnly,
}
"""Name -> function (objects, **options) that makes the recipe."""


def make_recipe(
    name: str,
    objects: Objects | None = None,
    recipes: dict[str, Callable[..., Recipe]] = RECIPES,
    **options: Any,
) -> Recipe:
    """Make a recipe. Raises TrainingError: unknown name or option, or no objects to paste."""
    if name not in recipes:
        raise TrainingError(f'recipe: expected one of {", ".join(recipes)}, got {name!r}')
    try:
        return recipes[name](objects, **options)
    except TypeError as error:
        raise TrainingError(f'recipe {name}: {error}') from error


@contextlib.contextmanager
def seeded(rng: Rng) -> Iterator[None]:
    """Let torch's transforms draw from a seed of `rng`; torch's own state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        yield


def as_image(image: Array) -> tv_tensors.Image:
    """Wrap uint8 (H, W, 3) RGB for torchvision's transforms."""
    return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))


def as_array(image: torch.Tensor) -> Array:
    """Turn what :func:`as_image` gave into uint8 (H, W, 3)."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())
