# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Outlines that flicker, joined with those of earlier frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ood_perception.frames.flow import grey_picture
from ood_perception.masks.outline_memory import SECONDS, OutlineMemory
from ood_perception.result import Result
from ood_simulation import ProvingGround

HEIGHT, WIDTH = 120, 160
TICK = 50_000_000
"""Nanoseconds between two frames."""


def picture(shift: float = 0.0) -> np.ndarray:
    """A pattern that moves to the right."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 255, (30, 40)).astype(np.uint8)
    whole = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    matrix = np.array([[1, 0, shift], [0, 1, 0]], np.float64)
    return cv2.warpAffine(whole, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(column - x, row - y) <= radius


def found(**masks: np.ndarray) -> Result:
    """Result with an object for each mask, `i7` having the id 7; later ones are on top."""
    size = next(iter(masks.values())).shape if masks else (HEIGHT, WIDTH)
    instances = np.zeros(size, np.uint16)
    boxes, areas = [], []
    for name, mask in masks.items():
        instances[mask] = int(name[1:])
    for name in masks:
        mine = (instances == int(name[1:])).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(mine)
        boxes.append([x, y, x + w, y + h])
        areas.append(mine.sum())
    count = len(masks)
    return Result(
        instances=instances,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        confidences=np.linspace(0.9, 0.5, count, dtype=np.float32),
        ids=np.array([int(name[1:]) for name in masks], np.int32),
        areas=np.array(areas, np.int32),
        mean_scores=np.arange(count, dtype=np.float32),
        surroundings=np.arange(count, dtype=np.uint8),
    )


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def consistent(result: Result) -> bool:
    """Whether boxes, areas and ids are those of the pixels."""
    for name, box, area in zip(result.ids, result.boxes, result.areas, strict=True):
        mine = (result.instances == name).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(mine)
        if mine.sum() != area or box.tolist() != [x, y, x + w, y + h]:
            return False
    return set(np.unique(result.instances)) - {0} == set(result.ids.tolist())


@pytest.mark.parametrize('speed', [0.0, 1.5, 4.0])
@pytest.mark.parametrize('size', [(HEIGHT, WIDTH), (60, 80), (240, 320)])
def test_an_outline_that_flickers_holds_still_while_its_object_moves(speed, size):
    memory, rng = OutlineMemory(), np.random.default_rng(0)
    before, after = [], []
    for k in range(20):
        exact = disc(40 + speed * k, 60, 18)
        result = found(i7=disc(40 + speed * k, 60, 18 + rng.normal(0, 2.5)))
        before.append(iou(result.instances == 7, exact))
        memory(result, cv2.resize(picture(speed * k), size[::-1]), k * TICK + 1)
        after.append(iou(result.instances == 7, exact))
        assert consistent(result)
    assert np.mean(after[8:]) > np.mean(before[8:]) + 0.05
    assert np.mean(after[8:]) > 0.9


def test_the_first_frame_and_a_part_that_is_seen_once_change_little():
    memory, whole = OutlineMemory(), disc(80, 60, 25)
    for k in range(6):
        memory(result := found(i3=whole), picture(), k * TICK + 1)
        assert np.array_equal(result.instances == 3, whole)
    top = whole & (np.mgrid[:HEIGHT, :WIDTH][0] < 60)
    memory(result := found(i3=top), picture(), 6 * TICK + 1)
    assert iou(result.instances == 3, whole) > 0.95
    for k in range(7, 40):
        memory(result := found(i3=top), picture(), k * TICK + 1)
    assert iou(result.instances == 3, top) > 0.95  # what stays so is believed


@pytest.mark.parametrize(
    'why', ['other id', 'long ago', 'not later', 'other size', 'reset', 'far']
)
def test_what_is_not_the_same_object_or_moment_is_not_joined(why):
    memory, large, small = OutlineMemory(), disc(80, 60, 30), disc(80, 60, 20)
    for k in range(5):
        memory(found(i4=large), picture(), k * TICK + 1)
    stamp, view, result = 5 * TICK + 1, picture(), found(i4=small)
    if why == 'other id':
        result = found(i5=small)
    elif why == 'long ago':
        stamp = int(SECONDS * 5e9) + 1
    elif why == 'not later':
        stamp = 1
    elif why == 'other size':
        view = view[:60]
    elif why == 'reset':
        memory.reset()
    else:
        result = found(i4=disc(80, 60, 7))
    expected = result.instances.copy()
    memory(result, view, stamp)
    assert np.array_equal(result.instances, expected)


def test_two_objects_share_no_pixel_and_one_that_has_none_left_is_gone():
    memory = OutlineMemory()
    left, right = disc(60, 60, 20), disc(85, 60, 20)
    for k in range(4):
        memory(found(i1=left, i2=right & ~left), picture(), k * TICK + 1)
    result = found(i1=left & ~right, i2=right)
    memory(result, picture(), 4 * TICK + 1)
    assert consistent(result)
    assert result.ids.tolist() == [1, 2]
    assert iou(result.instances == 1, left) > 0.95  # as it was before
    speck = disc(110, 100, 2)
    result = found(i1=left, i2=right & ~left, i9=speck)
    memory(result, picture(), 5 * TICK + 1)
    assert result.ids.tolist() == [1, 2, 9]
    assert len(result.mean_scores) == len(result.surroundings) == len(result.confidences) == 3


def test_objects_at_the_border_and_none_at_all():
    memory = OutlineMemory()
    for k in range(8):
        x = 150 + 3 * k
        result = found(i1=disc(x, 60, 20)) if disc(x, 60, 20).any() else found()
        memory(result, picture(3.0 * k), k * TICK + 1)
        assert consistent(result)
    memory(result := found(), picture(), 9 * TICK + 1)
    assert not len(result.ids)


@pytest.mark.parametrize('growth', [1.03, 1.12, 0.88])
def test_an_outline_grows_with_an_object_that_comes_near(growth):
    memory, wide = OutlineMemory(), picture()
    for k in range(8):
        factor = growth**k
        zoom = cv2.getRotationMatrix2D((80, 60), 0, factor)
        view = cv2.warpAffine(wide, zoom, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        exact = disc(80, 60, (22 if growth > 1 else 55) * factor)
        memory(result := found(i2=exact), view, 2 * k * TICK + 1)
        assert iou(result.instances == 2, exact) > 0.95, k


def test_true_outlines_of_things_that_are_passed_stay_true():
    """Of a rendered drive: they grow by a tenth from frame to frame, and leave at the border."""
    memory, drive = OutlineMemory(), ProvingGround(1007, 480, 360, rate=10.0, unknowns=2.5)
    kept = []
    for k in range(12):
        frame = drive.frame(k)
        names = [i for i in np.unique(frame.instances).tolist() if i]
        truth = {f'i{name}': frame.instances == name for name in names}
        memory(result := found(**truth), grey_picture(frame.image), 2 * k * TICK + 1)
        kept += [
            iou(result.instances == name, mask)
            for name, mask in zip(names, truth.values(), strict=True)
            if mask.sum() > 2500
        ]
    assert len(kept) >= 15
    assert np.mean(kept) > 0.95
    assert min(kept) > 0.8
