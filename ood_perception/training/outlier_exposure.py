# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Outlier exposure of the compact network: unknown objects pasted into street frames.

A network learns whatever tells pasted from not pasted. So known things cut from other frames are
pasted too, as what they are: then seams, light and blur are no evidence, only the thing is.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ood_perception.training.augment import random_view
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.data import read_rgba
from ood_perception.training.losses import IGNORE as VOID
from ood_perception.training.losses import UNKNOWN
from ood_perception.training.photometric import (
    change_camera,
    change_object,
    match_light,
    recolour_surface,
)
from ood_perception.training.procedural import draw_object

Array = np.ndarray
Rng = np.random.Generator
Pair = tuple[Array, Array]
"""image uint8 (H, W, 3) RGB, label uint8 (H, W): class ids, 254 unknown, 255 void."""

THINGS = (8, 9, 10, 6, 2)
"""CamVid classes that are cut out and pasted: car, pedestrian, bicyclist, sign, pole."""

MOVING = (8, 9, 10)
"""Classes that patches of surfaces are not cut from."""


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
        self.cut, self.unknown = cut, [rgba for rgba, _ in cut_known(frames, (UNKNOWN,), most)]

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
            paste(rng, image, label, self._object(rng), UNKNOWN)
        if rng.random() < 0.4:
            self._thing(rng, image, label)
        return change_camera(rng, image), label

    def _target(self, rng: Rng) -> int | None:
        # Large near things that are known, cut off by the frame, are rare and hard.
        draw = rng.random()
        if self.unknown and draw < 0.4:
            return UNKNOWN
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
        if value in (*MOVING, UNKNOWN, VOID):
            return
        mask = np.where(classes[box] == value, 255, 0).astype(np.uint8)
        height, width = mask.shape
        if rng.random() < 0.5:
            half = width // 2, height // 2
            round_ = cv2.ellipse(np.zeros_like(mask), half, half, 0, 0, 360, 255, -1)
            mask = mask & round_
        rgba = np.dstack([source[box], mask])
        paste(rng, image, label, rgba, value, float(np.sqrt(width * height)))


def paste(
    rng: Rng,
    image: Array,
    label: Array,
    rgba: Array,
    value: int,
    side: float | None = None,
) -> bool:
    """
    Paste a cut-out at a random place, in place; it may reach beyond the frame.

    Size, small rotation, light, blur, noise, softness of the edge and a shadow on the ground vary.

    Args:
        rng: random numbers.
        image: uint8 (H, W, 3), changed in place.
        label: uint8 (H, W), changed in place.
        rgba: uint8 (h, w, 4).
        value: label of the object's pixels.
        side: square root of the area of its box in pixels; None draws it log-uniformly, 12..260.

    Returns:
        False where nothing was pasted, since too little of it would be seen.

    """
    height, width = label.shape
    wanted = side or float(np.exp(rng.uniform(np.log(12), np.log(260))))
    rgba = _scaled(rng, rgba, wanted, (height, width), rotate=value == UNKNOWN)
    h, w = rgba.shape[:2]
    x = int(rng.integers(-w // 4, max(1, width - 3 * w // 4)))
    lowest = -h // 4 if rng.random() < 0.2 else height // 4 - h // 2
    y = int(rng.integers(lowest, max(lowest + 1, height - 3 * h // 4)))
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
    if rng.random() < 0.35 and y1 - y0 > 10:
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


def load_objects(root: Path, held_out: bool, share: int = 5) -> list[Array]:
    """
    Load cut-outs of `root`, split by the picture that they come from.

    Args:
        root: folder with INDEX.csv (columns file, coco_image_id, recommended, fill,
            border_sides).
        held_out: True for those kept for validation (1 of `share` pictures), which are only
            recommended ones; False for the others.
        share: see above.

    Returns:
        uint8 (h, w, 4) RGBA each.

    Raises:
        TrainingError: no index, or nothing in it.

    """
    index = root / 'INDEX.csv'
    if not index.is_file():
        raise TrainingError(f'{index}: missing')
    objects = []
    with index.open(newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
            digest = hashlib.sha1(row['coco_image_id'].encode()).hexdigest()
            if (int(digest, 16) % share == 0) != held_out:
                continue
            good = row['recommended'] == '1'
            usable = not held_out and not row['border_sides'] and float(row['fill']) >= 0.3
            if good or usable:
                objects.append(read_rgba(root / row['file']))
    if not objects:
        raise TrainingError(f'{index}: no cut-outs to use')
    return objects


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
            paste(rng, image, label, change_object(rng, rgba, strong=False), UNKNOWN, side)
        samples.append((image, np.where(label == VOID, VOID, label == UNKNOWN).astype(np.uint8)))
    return samples
