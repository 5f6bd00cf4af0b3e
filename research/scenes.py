# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Training samples in robot7: views of photographs with unknown things put among known ones.

Whatever tells pasted from not pasted would be learnt, so known things are pasted as known, pieces
of a surface on the same surface, and at the same sizes. Unknown things are of every kind and size,
up to most of the view; known ones stand in front of them, the frame cuts them off, they have a
shadow where they touch the ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ood_perception.labels import Label
from ood_training.recipes import paste
from research.augment import random_view
from research.machines import draw_thing, mix
from research.outlier_exposure import cut_known
from research.photometric import change_camera, change_object, recolour_surface
from research.procedural import draw_object
from research.weather import hard_seeing

Array = np.ndarray
Rng = np.random.Generator
Pair = tuple[Array, Array]

PERSON, VEHICLE, ROADSIDE = 2, 3, 4
THINGS = (PERSON, VEHICLE, ROADSIDE)
SURFACES = (0, 1, 5, 6)
GROUND = (0, 1)


@dataclass
class Source:
    """
    Labelled frames, and how often and how closely they are looked at.

    Attributes:
        name: of the source.
        weight: relative number of samples that start from it.
        pairs: images and labels.
        closer: scale of the views, see `augment.random_view`.
        nearest: largest scale: small pictures are not enlarged much.
        void_vehicles: share of the samples in which vehicles teach nothing: where a source calls
            everything on wheels a vehicle, machines too would become known.
        cut: whether known and unknown things are cut out of it.

    """

    name: str
    weight: float
    pairs: Sequence[Pair]
    closer: float = 1.25
    nearest: float = 1.9
    void_vehicles: float = 0.0
    cut: bool = True


@dataclass
class Things:
    """
    What can be pasted.

    Attributes:
        cutouts: unknown things, uint8 (h, w, 4) RGBA.
        own: unknown things cut from labelled photographs.
        known: known things and their classes.

    """

    cutouts: Sequence[Array]
    own: list[Array] = field(default_factory=list)
    known: list[tuple[Array, int]] = field(default_factory=list)

    @classmethod
    def collect(cls, cutouts: Sequence[Array], sources: Sequence[Source]) -> Things:
        """Cut things out of the sources, up to 500 known and 400 unknown ones of each."""
        things = cls(cutouts)
        for source in sources:
            if source.cut:
                things.known += cut_known(source.pairs, THINGS, 500)
                things.own += [rgba for rgba, _ in cut_known(source.pairs, (Label.UNKNOWN,), 400)]
        return things

    def unknown(self, rng: Rng) -> Array:
        """Draw one unknown thing: photographed, cut from a photograph, drawn, put together."""
        draw = rng.random()
        if draw < 0.16:
            return draw_object(rng)
        if draw < 0.40:
            return change_object(rng, draw_thing(rng, self._any(rng)), strong=False)
        if draw < 0.50:
            return change_object(rng, mix(rng, self._any(rng)))
        source = self.own if self.own and draw < 0.65 else self.cutouts
        return change_object(rng, source[int(rng.integers(len(source)))])

    def _any(self, rng: Rng) -> list[Array]:
        """A few cut-outs of all kinds, known ones among them."""
        some = [self.cutouts[int(rng.integers(len(self.cutouts)))] for _ in range(3)]
        some += [self.own[int(rng.integers(len(self.own)))]] if self.own else []
        some += [self.known[int(rng.integers(len(self.known)))][0]] if self.known else []
        return some


class Scenes:
    """
    Make samples from the frames of one source.

    Args:
        source: the frames.
        things: what is pasted.
        size: (height, width) of the samples in pixels.

    """

    def __init__(self, source: Source, things: Things, size: tuple[int, int] = (256, 336)) -> None:
        self.source, self.things, self.size = source, things, size

    def __call__(self, rng: Rng, image: Array, label: Array) -> Pair:
        """Compose one sample; image and label are not changed."""
        s = self.source
        image, label = random_view(
            rng, image, label, self.size, s.nearest, towards=self._target(rng), closer=s.closer
        )
        if s.void_vehicles and rng.random() < s.void_vehicles:
            label[label == VEHICLE] = Label.VOID
        if rng.random() < 0.35:
            recolour_surface(rng, image, label, SURFACES)
        front = image.copy(), label.copy()
        for _ in range(int(rng.integers(0, 3))):
            self._known(rng, image, label)
        for _ in range(int(rng.integers(0, 3))):
            self._decal(rng, image, label)
        for _ in range(int(rng.choice(5, p=[0.22, 0.36, 0.22, 0.12, 0.08]))):
            self._unknown(rng, image, label, front)
        if rng.random() < 0.35:
            self._known(rng, image, label)
        return hard_seeing(rng, change_camera(rng, image)), label

    def _target(self, rng: Rng) -> int | None:
        draw = rng.random()
        if draw < 0.3:
            return Label.UNKNOWN
        return int(rng.choice(THINGS, p=(0.35, 0.4, 0.25))) if draw < 0.55 else None

    def _side(self, rng: Rng) -> float:
        """Side of a thing in pixels, the same for known and unknown ones."""
        largest = 0.95 * self.size[0]
        if rng.random() < 0.14:
            return float(rng.uniform(0.55, 1.1) * largest)
        return float(np.exp(rng.uniform(np.log(12), np.log(largest))))

    def _known(self, rng: Rng, image: Array, label: Array) -> None:
        if not self.things.known:
            return
        rgba, value = self.things.known[int(rng.integers(len(self.things.known)))]
        own = float(np.sqrt(rgba.shape[0] * rgba.shape[1]))
        side = min(self._side(rng), 3 * own) if rng.random() < 0.6 else own
        rgba = change_object(rng, rgba, strong=False)
        paste(rng, image, label, rgba, value, side, foot=_foot(rng, label))

    def _unknown(self, rng: Rng, image: Array, label: Array, front: Pair) -> None:
        rgba = self.things.unknown(rng)
        foot = _foot(rng, label) if rng.random() < 0.6 else None
        paste(rng, image, label, rgba, Label.UNKNOWN, self._side(rng), foot=foot)
        if rng.random() < 0.25:  # known things of the frame stand in front of it
            before = np.isin(front[1], THINGS) & (label == Label.UNKNOWN)
            soft = cv2.GaussianBlur(before.astype(np.float32), (0, 0), 0.7)[..., None]
            image[...] = (image + (front[0] - image.astype(np.float32)) * soft).astype(np.uint8)
            label[before] = front[1][before]

    def _decal(self, rng: Rng, image: Array, label: Array) -> None:
        """Put a piece of a surface of another frame on the same surface here."""
        source, classes = self.source.pairs[int(rng.integers(len(self.source.pairs)))]
        value = int(SURFACES[int(rng.integers(len(SURFACES)))])
        places = np.flatnonzero(label[::8, ::8] == value)
        if not len(places):
            return
        height, width = (int(v) for v in rng.integers(12, 160, 2))
        y = int(rng.integers(0, max(classes.shape[0] - height, 1)))
        x = int(rng.integers(0, max(classes.shape[1] - width, 1)))
        box = slice(y, y + height), slice(x, x + width)
        if (classes[box] == value).mean() < 0.6:
            return
        piece, fits = source[box].astype(np.float32), classes[box] == value
        height, width = fits.shape
        row, column = divmod(int(places[int(rng.integers(len(places)))]), label[::8, ::8].shape[1])
        top, left = max(row * 8 - height // 2, 0), max(column * 8 - width // 2, 0)
        here = slice(top, top + height), slice(left, left + width)
        shape = label[here].shape
        mask = np.zeros((height, width), np.float32)
        if rng.random() < 0.5:
            mask[2:-2, 2:-2] = 1
        else:
            half = width // 2, height // 2
            cv2.ellipse(mask, half, (half[0] - 1, half[1] - 1), 0, 0, 360, 1.0, -1)
        mask = mask * fits
        if rng.random() < 0.7:
            mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.4, 1.5))
        mask = mask[: shape[0], : shape[1]] * (label[here] == value)
        place = image[here].astype(np.float32)
        piece = piece[: shape[0], : shape[1]]
        piece = piece + (place.mean() - piece.mean()) * rng.uniform(0, 0.9)
        mixed = place + (piece - place) * mask[..., None]
        image[here] = np.clip(mixed, 0, 255).astype(np.uint8)


def _foot(rng: Rng, label: Array) -> tuple[int, int] | None:
    """A point (x, y) on the ground where something may stand; None where no ground is seen."""
    places = np.flatnonzero(np.isin(label[::4, ::4], GROUND))
    if not len(places):
        return None
    row, column = divmod(int(places[int(rng.integers(len(places)))]), label[::4, ::4].shape[1])
    return column * 4, row * 4
