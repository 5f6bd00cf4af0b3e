# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Scenes for training prompts and masks: frames, pasted unknown objects, their score maps.

Objects are RGBA cut-outs pasted on frames of known things. The score map comes from a pipeline's
own model when there is one; otherwise it is the true mask, spoilt the way that real score maps
are: coarse, weak inside of large objects, noisy, with false alarms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ood_perception.labels import Label
from ood_training.data import read_image
from research import cutouts, photographs

LEAST_AREA = 50
"""Pixels below which a thing on a photograph is no object, and is not asked for."""

MOST_VOID = 0.3
"""Share of a photograph without a label above which it makes no scene."""


@dataclass
class Scene:
    """
    One frame with unknown objects.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        labels: uint8 (H, W), 0 = known, 1..N = the object that one sees there.
        probability: float (H, W), 0..1, calibrated probability of being unknown.
        proposals: float32 (K, 4) XYXY pixels, boxes that a prompt generator finds in
            `probability`; None = not asked.

    """

    image: np.ndarray
    labels: np.ndarray
    probability: np.ndarray
    proposals: np.ndarray | None = None

    def boxes(self, least: int = 1) -> np.ndarray:
        """Float32 (N, 4) XYXY pixels around the objects of which `least` pixels are seen."""
        areas = np.bincount(self.labels.ravel(), minlength=1)
        found = []
        for index in np.flatnonzero(areas[1:] >= max(1, least)) + 1:
            x, y, w, h = cv2.boundingRect((self.labels == index).view(np.uint8))
            found.append((x, y, x + w, y + h))
        return np.array(found, np.float32).reshape(-1, 4)


def load_objects(folder: Path, held_out: bool) -> list[np.ndarray]:
    """
    Load the recommended cut-outs of a folder, see `cutouts.load_objects`.

    Returns:
        uint8 (h, w, 4) RGBA arrays, at most 320 pixels long.

    """
    objects = []
    for image in cutouts.load_objects(folder, held_out, recommended=True):
        scale = min(1.0, 320 / max(image.shape[:2]))
        objects.append(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    return objects


def load_frames(
    folder: Path, every: int = 1, without: str = '', only: str = ''
) -> list[np.ndarray]:
    """
    Read frames of a folder with INDEX.csv (columns image, sequence).

    Args:
        folder: of the data set.
        every: take every n-th frame.
        without: sequence that is left out.
        only: sequence that alone is taken.

    Returns:
        uint8 (H, W, 3) RGB arrays.

    Raises:
        TrainingError: no index, a column that it lacks, or an image that cannot be read.

    """
    rows = cutouts.index_rows(folder, ('image', 'sequence'))
    rows = [row for row in rows if row['sequence'] != without]
    if only:
        rows = [row for row in rows if row['sequence'] == only]
    return [read_image(folder / row['image']) for row in rows[::every]]


def photographed(
    data: Path, width: int, height: int, held_out: bool, free: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """
    Real unknown things in place: photographs whose labels name them.

    Args:
        data: folder that holds dhcn_indoor and coco_context.
        width: of the scenes, in pixels; photographs are cut to its shape in the middle.
        height: of the scenes.
        held_out: those that no network was trained on instead.
        free: only those whose licence lets a company use the result.

    Returns:
        image uint8 (H, W, 3) RGB and labels uint8 (H, W), see `Scene`; connected parts of the
        unknown are objects. Photographs without one, or with little labelled, are left out.

    Raises:
        TrainingError: what `photographs.read_index` and `photographs.load` refuse.

    """
    indoor = photographs.read_index(data / 'dhcn_indoor')
    chosen = [p for p in indoor if p.split == ('val' if held_out else 'train')]
    chosen += [
        p
        for p in photographs.read_index(data / 'coco_context')
        if photographs.in_held_out_fifth(p.key) == held_out
    ]
    if free:
        chosen = [p for p in chosen if p.licence in photographs.FREE_LICENCES]
    scenes = []
    for image, label in photographs.load(chosen):
        image, label = middle(image, width, height), middle(label, width, height)
        objects = separate(label == Label.UNKNOWN)
        if objects.any() and (label == Label.VOID).mean() <= MOST_VOID:
            scenes.append((image, objects))
    return scenes


def middle(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Cut the largest part of the shape width : height from the middle, at that size."""
    h, w = picture.shape[:2]
    wide, high = min(w, h * width // height), min(h, w * height // width)
    y, x = (h - high) // 2, (w - wide) // 2
    how = cv2.INTER_NEAREST if picture.ndim == 2 else cv2.INTER_AREA
    return cv2.resize(picture[y : y + high, x : x + wide], (width, height), interpolation=how)


def separate(unknown: np.ndarray) -> np.ndarray:
    """Number the connected parts of bool (H, W) that are large enough: uint8 (H, W)."""
    _, parts, found, _ = cv2.connectedComponentsWithStats(unknown.view(np.uint8))
    labels = np.zeros(unknown.shape, np.uint8)
    large = [i for i in range(1, len(found)) if found[i, cv2.CC_STAT_AREA] >= LEAST_AREA]
    for number, part in enumerate(large[:254], 1):
        labels[parts == part] = number
    return labels


def compose(
    frame: np.ndarray, objects: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """
    Paste up to four objects on a frame.

    Args:
        frame: uint8 (H, W, 3) RGB.
        objects: uint8 (h, w, 4) RGBA cut-outs.
        rng: source of all chance.

    Returns:
        image uint8 (H, W, 3) and labels uint8 (H, W), see `Scene`.

    """
    height, width = frame.shape[:2]
    image: Any = frame.astype(np.float32)
    labels = np.zeros((height, width), np.uint8)
    for index in range(1, int(rng.integers(1, 5)) + 1):
        cut: Any = objects[int(rng.integers(len(objects)))]
        side = np.exp(rng.uniform(np.log(7), np.log(220))) * height / 360
        scale = side / max(cut.shape[:2])
        size = [max(4, round(cut.shape[axis] * scale)) for axis in (1, 0)]
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        cut = cv2.resize(cut, size, interpolation=how).astype(np.float32)
        cut = cut[:, ::-1] if rng.random() < 0.5 else cut
        alpha: Any = cut[..., 3] / 255
        if rng.random() < 0.5:
            alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.4, 1.2))
        colour = (cut[..., :3] - 127) * rng.uniform(0.6, 1.2) + 127 + rng.uniform(-40, 40)
        h, w = alpha.shape
        x = int(rng.integers(-w // 4, max(1, width - 3 * w // 4)))
        y = int(rng.integers(height // 5, max(height // 5 + 1, height - 2 * h // 3)))
        x1, y1, x2, y2 = max(0, x), max(0, y), min(width, x + w), min(height, y + h)
        if x2 <= x1 or y2 <= y1:
            continue
        part = np.s_[y1 - y : y2 - y, x1 - x : x2 - x]
        a = alpha[part][..., None]
        there = np.s_[y1:y2, x1:x2]
        image[there] = image[there] * (1 - a) + colour.clip(0, 255)[part] * a
        labels[there][alpha[part] > 0.5] = index
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.0))
    image = image * rng.uniform(0.75, 1.2) + rng.normal(0, rng.uniform(0, 6), image.shape)
    picture: Any = image.clip(0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
        picture = cv2.imdecode(cv2.imencode('.jpg', picture, quality)[1], cv2.IMREAD_COLOR)
    return picture, labels


def spoil(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """
    Make a likely score map out of the truth.

    Args:
        labels: uint8 (H, W), see `Scene`.
        rng: source of all chance.

    Returns:
        float32 (H, W), 0..1, a probability as coarse and as wrong as that of a real model.

    """
    height, width = labels.shape
    stride = int(rng.choice([4, 8, 8, 16]))
    coarse = (max(2, width // stride), max(2, height // stride))
    odds: Any = np.full((coarse[1], coarse[0]), rng.uniform(-6, -3), np.float32)
    for index in np.unique(labels[labels > 0]):
        mask: Any = (labels == index).astype(np.float32)
        soft = cv2.resize(mask, coarse, interpolation=cv2.INTER_AREA)
        inner: Any = cv2.erode(mask, np.ones((2 * stride + 1,) * 2))
        inner = cv2.resize(inner, coarse, interpolation=cv2.INTER_AREA)
        # Uniform insides of large objects fire less than their edges.
        hollow = rng.uniform(0, 0.9) if rng.random() < 0.4 else 0.0
        odds += soft * (1 - hollow * inner) * rng.uniform(3, 12)
    blobs = rng.normal(0, 1, odds.shape).astype(np.float32)
    odds += cv2.GaussianBlur(blobs, (0, 0), rng.uniform(0.5, 2)) * rng.uniform(0, 3)
    for _ in range(int(rng.poisson(1.5))):
        alarm: Any = np.zeros_like(odds)
        ends = rng.integers(0, [coarse[0], coarse[1]], (2, 2))
        if rng.random() < 0.5:
            ends[1] = ends[0] + rng.integers(-6, 7, 2)
        cv2.line(alarm, ends[0].tolist(), ends[1].tolist(), (1.0,), int(rng.integers(1, 3)))
        odds += cv2.GaussianBlur(alarm, (0, 0), 0.7) * rng.uniform(1, 6)
    odds = cv2.GaussianBlur(odds, (0, 0), rng.uniform(0.4, 1.0))
    fine = cv2.resize(odds, (width, height), interpolation=cv2.INTER_LINEAR)
    return 1 / (1 + np.exp(-fine.clip(-20, 20)))
