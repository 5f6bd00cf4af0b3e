# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Outlier exposure of the compact network: unknown objects pasted into street frames.

A network learns whatever tells pasted from not pasted. So known things cut from other frames are
pasted too, as what they are: then seams, light and blur are no evidence, only the thing is.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ood_perception.labels import Label, truth_of
from ood_training.checkpointing import TrainingError
from ood_training.recipes import paste
from research.augment import random_view
from research.cutouts import load_objects
from research.photometric import change_camera, change_object, recolour_surface
from research.procedural import draw_object

Array = np.ndarray
Rng = np.random.Generator
Pair = tuple[Array, Array]
"""image uint8 (H, W, 3) RGB, label uint8 (H, W): class ids, 254 unknown, 255 void."""

THINGS = (8, 9, 10, 6, 2)
"""CamVid classes that are cut out and pasted: car, pedestrian, bicyclist, sign, pole."""

MOVING = (8, 9, 10)
"""Classes that patches of surfaces are not cut from."""


__all__ = ['Exposure', 'cut_known', 'load_objects', 'paste', 'validation_set']


class Exposure:
    """
    Two recipes of samples: `known` for the segmentor, `outlier` for the UEM.

    Args:
        frames: pairs from which known things and patches are cut.
        objects: unknown things, uint8 (h, w, 4) RGBA.
        size: (height, width) of the samples in pixels.
        closer: see `random_view`.
        most: known things that are kept.
        drawn: share of unknown objects that are drawn instead of photographed.
        cut: share of those that are cut from `frames`, where these have unknown things.

    Raises:
        TrainingError: no frames or no objects.

    """

    def __init__(
        self,
        frames: Sequence[Pair],
        objects: Sequence[Array],
        size: tuple[int, int] = (288, 384),
        closer: float = 1.25,
        most: int = 1500,
        drawn: float = 0.3,
        cut: float = 0.35,
    ) -> None:
        if not len(frames) or not len(objects):
            raise TrainingError(
                f'outlier exposure needs frames and objects, got {len(frames)} and {len(objects)}'
            )
        self.frames, self.objects, self.drawn = frames, objects, drawn
        self.size, self.closer = size, closer
        self.things = cut_known(frames, most=most)
        self.cut = cut
        self.unknown = [rgba for rgba, _ in cut_known(frames, (Label.UNKNOWN,), most)]

    def known(self, rng: Rng, image: Array, label: Array) -> Pair:
        """Another view and camera of a frame, with a few known things pasted as known."""
        image, label = random_view(rng, image, label, self.size, closer=self.closer)
        if rng.random() < 0.3:
            recolour_surface(rng, image, label)
        for _ in range(int(rng.integers(0, 3))):
            self._thing(rng, image, label)
        return change_camera(rng, image), label

    def outlier(self, rng: Rng, image: Array, label: Array) -> Pair:
        """Paste none to four unknown objects between known ones and patches."""
        image, label = random_view(
            rng, image, label, self.size, towards=self._target(rng), closer=self.closer
        )
        if rng.random() < 0.3:
            recolour_surface(rng, image, label)
        for _ in range(int(rng.integers(0, 3))):
            self._thing(rng, image, label)
        if rng.random() < 0.15:
            self._patch(rng, image, label)
        for _ in range(int(rng.choice(5, p=[0.15, 0.35, 0.25, 0.15, 0.10]))):
            paste(rng, image, label, self._object(rng), Label.UNKNOWN)
        if rng.random() < 0.4:
            self._thing(rng, image, label)
        return change_camera(rng, image), label

    def _target(self, rng: Rng) -> int | None:
        # Large near things that are known, cut off by the frame, are rare and hard.
        draw = rng.random()
        if self.unknown and draw < 0.4:
            return Label.UNKNOWN
        return int(rng.choice(MOVING, p=(0.6, 0.25, 0.15))) if draw < 0.7 else None

    def _object(self, rng: Rng) -> Array:
        draw = rng.random()
        if draw < self.drawn:
            return draw_object(rng)
        own = self.unknown and draw < self.drawn + self.cut
        source = self.unknown if own else self.objects
        return change_object(rng, source[int(rng.integers(len(source)))])

    def _thing(self, rng: Rng, image: Array, label: Array) -> None:
        if not self.things:
            return
        rgba, value = self.things[int(rng.integers(len(self.things)))]
        side = float(np.sqrt(rgba.shape[0] * rgba.shape[1]) * np.exp(rng.uniform(-0.7, 0.8)))
        rgba = change_object(rng, rgba, strong=False)
        paste(rng, image, label, rgba, value, float(np.clip(side, 12, 260)))

    def _patch(self, rng: Rng, image: Array, label: Array) -> None:
        # A piece of one surface of another frame, pasted as that surface.
        source, classes = self.frames[int(rng.integers(len(self.frames)))]
        width, height = (int(v) for v in rng.integers(16, 120, 2))
        x = int(rng.integers(0, max(classes.shape[1] - width, 1)))
        y = int(rng.integers(0, max(classes.shape[0] - height, 1)))
        box = slice(y, y + height), slice(x, x + width)
        value = int(np.bincount(classes[box].ravel(), minlength=256).argmax())
        if value in (*MOVING, Label.UNKNOWN, Label.VOID):
            return
        mask = np.where(classes[box] == value, 255, 0).astype(np.uint8)
        height, width = mask.shape
        if rng.random() < 0.5:
            half = width // 2, height // 2
            round_ = cv2.ellipse(np.zeros_like(mask), half, half, 0, 0, 360, 255, -1)
            mask = mask & round_
        rgba = np.dstack([source[box], mask])
        paste(rng, image, label, rgba, value, float(np.sqrt(width * height)))


def cut_known(
    frames: Sequence[Pair], classes: Sequence[int] = THINGS, most: int = 1500, seed: int = 0
) -> list[tuple[Array, int]]:
    """
    Cut known things out of labelled frames.

    Args:
        frames: pairs.
        classes: ids of the classes of things.
        most: how many are kept, chosen at random.
        seed: of the choice.

    Returns:
        uint8 (h, w, 4) RGBA and the class id of each.

    """
    found: list[tuple[int, int, tuple[int, int, int, int], int]] = []
    for number, (_, label) in enumerate(frames):
        for value in classes:
            mask = (label == value).astype(np.uint8)
            count, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
            for part in range(1, count):
                x, y, w, h, area = (int(v) for v in stats[part])
                if area >= 250 and w >= 8 and h >= 12:
                    found.append((number, value, (x, y, w, h), part))
    order = np.random.default_rng(seed).permutation(len(found))[:most]
    cut = []
    for index in order:
        number, value, (x, y, w, h), part = found[index]
        image, label = frames[number]
        mask = (label == value).astype(np.uint8)
        _, parts = cv2.connectedComponents(mask, connectivity=8)
        box = slice(y, y + h), slice(x, x + w)
        alpha = np.where(parts[box] == part, 255, 0).astype(np.uint8)
        cut.append((np.dstack([image[box], alpha]), value))
    return cut


def validation_set(
    frames: Sequence[Pair], objects: Sequence[Array], seed: int = 7, most: int = 2
) -> list[Pair]:
    """
    Paste held-out objects into held-out frames, the same ones every time.

    Args:
        frames: pairs; not changed.
        objects: uint8 (h, w, 4) RGBA.
        seed: of the pasting.
        most: one to so many objects a frame, 14..200 pixels.

    Returns:
        image uint8 (H, W, 3) and label uint8 (H, W): 0 known, 1 unknown, 255 ignore.

    """
    samples = []
    for number, (image, label) in enumerate(frames):
        rng = np.random.default_rng((seed, number))
        image, label = image.copy(), label.copy()
        for _ in range(int(rng.integers(1, most + 1))):
            rgba = objects[int(rng.integers(len(objects)))]
            side = float(np.exp(rng.uniform(np.log(14), np.log(200))))
            paste(rng, image, label, change_object(rng, rgba, strong=False), Label.UNKNOWN, side)
        samples.append((image, truth_of(label)))
    return samples
