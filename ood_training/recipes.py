# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Recipes of samples, by name: functions (rng, image, label) -> (image, label).

Unknown objects are pasted so that seam, light and blur do not give them away: a network learns
whatever tells pasted pixels from others, and only the object itself should.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from ood_perception.labels import Label
from ood_training.checkpointing import TrainingError
from ood_training.data import Array, Objects, Recipe

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
            raise TrainingError(
                'no pixel of --val is unknown (label 254), so AP cannot be measured: '
                'give --val-objects to paste, or leave out --val'
            )
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


def paste(
    rng: Rng,
    image: Array,
    label: Array,
    rgba: Array,
    value: int,
    side: float | None = None,
    foot: tuple[int, int] | None = None,
) -> bool:
    """
    Paste a cut-out at a random place, in place; it may reach beyond the frame.

    Size, small rotation, light, blur, noise, softness of the edge and a shadow on the ground vary.

    Args:
        image: uint8 (H, W, 3), changed in place.
        label: uint8 (H, W), changed in place.
        rgba: uint8 (h, w, 4).
        value: label of the object's pixels.
        side: square root of the area of its box in pixels; None draws it log-uniformly, 12..260.
        foot: (x, y) of the middle of its lower edge, where it mostly has a shadow; None draws it.

    Returns:
        False where nothing was pasted, since too little of it would be seen.
    """
    height, width = label.shape
    wanted = side or float(np.exp(rng.uniform(np.log(12), np.log(260))))
    rgba = _scaled(rng, rgba, wanted, (height, width), rotate=value == Label.UNKNOWN)
    h, w = rgba.shape[:2]
    x = int(rng.integers(-w // 4, max(1, width - 3 * w // 4)))
    lowest = -h // 4 if rng.random() < 0.2 else height // 4 - h // 2
    y = int(rng.integers(lowest, max(lowest + 1, height - 3 * h // 4)))
    if foot is not None:
        x, y = foot[0] - w // 2, foot[1] - h
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
    if x1 - x0 < 3 or y1 - y0 < 3:
        return False
    part = rgba[y0 - y : y1 - y, x0 - x : x1 - x].astype(np.float32)
    rgb, alpha = part[..., :3], part[..., 3] / 255
    opaque = alpha > 0.5
    if opaque.sum() < 12:
        return False
    rgb = match_light(rng, rgb, opaque, image[y0:y1, x0:x1].astype(np.float32))
    if rng.random() < 0.4:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.3:
        rgb = rgb + rng.standard_normal(rgb.shape, dtype=np.float32) * np.float32(
            rng.uniform(1, 8)
        )
    softness = rng.uniform(0, 1.4)
    if softness > 0.25:
        alpha = cv2.GaussianBlur(alpha, (0, 0), softness)
    if rng.random() < (0.35 if foot is None else 0.7) and y1 - y0 > 10:
        _shadow(rng, image, (x0, y0, x1, y1))
    place = image[y0:y1, x0:x1]
    mixed = place + (rgb - place) * alpha[..., None]
    image[y0:y1, x0:x1] = np.clip(mixed, 0, 255).astype(np.uint8)
    label[y0:y1, x0:x1][alpha > 0.5] = value
    return True


def _scaled(rng: Rng, rgba: Array, side: float, frame: tuple[int, int], rotate: bool) -> Array:
    # Alpha must not pull in the colour of transparent pixels, which is black in cut-outs.
    h, w = rgba.shape[:2]
    scale = min(side / np.sqrt(h * w), 0.95 * frame[1] / w, 0.9 * frame[0] / h)
    colour = rgba.astype(np.float32)
    colour[..., :3] *= colour[..., 3:] / 255
    if rotate and rng.random() < 0.48:
        matrix = cv2.getRotationMatrix2D((w / 2, h / 2), rng.normal(0, 12), scale)
        cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
        size = int(h * sin + w * cos) + 2, int(h * cos + w * sin) + 2
        matrix[:, 2] += size[0] / 2 - w / 2, size[1] / 2 - h / 2
        if scale < 0.6:
            colour = cv2.GaussianBlur(colour, (0, 0), 0.45 / scale)
        colour = cv2.warpAffine(colour, matrix, size, flags=cv2.INTER_LINEAR)
    else:
        size = max(3, int(w * scale)), max(3, int(h * scale))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        colour = cv2.resize(colour, size, interpolation=way)
    colour[..., :3] *= 255 / np.maximum(colour[..., 3:], 1)
    return np.clip(colour, 0, 255).astype(np.uint8)


def _shadow(rng: Rng, image: Array, box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    flat = max(3, (y1 - y0) // 6)
    rows = slice(max(0, y1 - 2 * flat), min(image.shape[0], y1 + 2 * flat))
    columns = slice(max(0, x0 - flat), min(image.shape[1], x1 + flat))
    centre = (x0 + x1) // 2 - columns.start, y1 - 1 - rows.start
    shade = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    cv2.ellipse(shade, centre, ((x1 - x0) // 2, flat), 0, 0, 360, (1.0,), -1)
    shade = cv2.GaussianBlur(shade, (0, 0), max(1, flat / 3)) * np.float32(rng.uniform(0.2, 0.6))
    image[rows, columns] = (image[rows, columns] * (1 - shade[..., None])).astype(np.uint8)


def match_light(rng: Rng, rgb: Array, opaque: Array, place: Array) -> Array:
    """
    Move brightness and contrast of an object some way towards those of its surroundings.

    Args:
        rng: random numbers; how far is drawn from them.
        rgb: float32 (h, w, 3), 0..255.
        opaque: bool (h, w), the object's pixels, at least one.
        place: float32 (h, w, 3), what the object is pasted on.

    Returns:
        float32 (h, w, 3).
    """
    how_far = rng.uniform(0, 0.8)
    if rng.random() >= 0.75:
        return rgb
    mean, spread = rgb[opaque].mean(), rgb[opaque].std() + 1
    target, target_spread = place.mean(), max(place.std(), 12)
    contrast = 1 + 0.5 * how_far * (np.clip(target_spread / spread, 0.4, 1.8) - 1)
    return (rgb - mean) * np.float32(contrast) + np.float32(mean + how_far * (target - mean))
