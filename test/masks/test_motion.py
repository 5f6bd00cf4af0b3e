# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Motions of single objects, against the exact ones of made pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ood_perception.frames.flow import flow_between, grey_picture, small
from ood_perception.masks.motion import motion_of, refined

HEIGHT, WIDTH = 240, 320


def texture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    total = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for cell in (32, 8, 4):
        shape = HEIGHT // cell + 2, WIDTH // cell + 2, 3
        coarse = rng.normal(0, 25, shape).astype(np.float32)
        total += cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + total, 0, 255).astype(np.uint8)


def scene(radius: float, motion: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """A disc in the middle, moved by `motion` over a still ground; and its mask, of a size."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = (np.hypot(x - 160, y - 120) <= radius).astype(np.float32)
    cover = cv2.warpAffine(disc, motion, (WIDTH, HEIGHT))[..., None]
    thing = cv2.warpAffine(texture(1), motion, (WIDTH, HEIGHT))
    image = (cover * thing + (1 - cover) * texture(2)).astype(np.uint8)
    return grey_picture(cv2.resize(image, size)), cv2.resize(disc, size)


STILL = np.array([[1, 0, 0], [0, 1, 0]], np.float64)


def shifted(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y]], np.float64)


@pytest.mark.parametrize('size', [(320, 240), (1280, 960)])
@pytest.mark.parametrize('shift', [(0, 0), (2.4, -1.7), (-5.5, 3.2), (9, 0)])
@pytest.mark.parametrize('radius', [6, 12, 40])
def test_pixels_of_an_object_tell_its_motion_where_the_small_flow_is_off(radius, shift, size):
    (first, disc), (second, _) = (scene(radius, m, size) for m in (STILL, shifted(*shift)))
    mask, scale = (disc > 0.5).astype(np.uint8), size[0] / WIDTH
    exact = shifted(*shift)
    exact[:, 2] *= scale
    near = exact.copy()
    near[:, 2] += 2.5 * scale, -1.5 * scale
    found = refined(near, mask, (0, 0), mask.shape, first, second)
    middle = np.array([160, 120, 1]) * [scale, scale, 1]
    assert found @ middle == pytest.approx(exact @ middle, abs=0.4 * scale)
    assert np.hypot(*found[0, :2]) == pytest.approx(1, abs=0.1)


def test_turn_and_size_are_read_off_a_large_object():
    turned = cv2.getRotationMatrix2D((160, 120), 5.0, 1.08)
    (first, disc), (second, _) = (scene(40, m, (WIDTH, HEIGHT)) for m in (STILL, turned))
    mask = (disc > 0.5).astype(np.uint8)[70:180, 100:]
    found = refined(shifted(1, 1), mask, (100, 70), disc.shape, first, second)
    corners = np.array([[130, 100, 1], [190, 100, 1], [160, 150, 1]]).T
    assert found @ corners == pytest.approx(turned @ corners, abs=0.6)


@pytest.mark.parametrize('case', ['gone', 'plain', 'outside', 'few pixels', 'tiny picture'])
def test_a_motion_stays_where_nothing_is_found_again(case):
    first, disc = scene(12, STILL, (WIDTH, HEIGHT))
    mask, second, motion = (disc > 0.5).astype(np.uint8), first, shifted(3, 2)
    if case == 'gone':
        second = grey_picture(texture(9))
    elif case == 'plain':
        first = second = np.full_like(first, 90)
    elif case == 'outside':
        motion = shifted(900, -700)
    elif case == 'few pixels':
        mask = np.zeros_like(mask)
        mask[100, 100] = 1
    else:
        first = second = first[:5, :5]
    assert refined(motion, mask, (0, 0), disc.shape, first, second) is motion


def test_flow_and_pixels_together():
    (first, disc), (second, _) = (scene(25, m, (WIDTH, HEIGHT)) for m in (STILL, shifted(7.5, 4)))
    mask = (disc > 0.5).astype(np.uint8)
    forward, _, followed = flow_between(small(first), small(second))
    rough = motion_of(mask, forward, followed)
    assert rough is not None
    found = refined(rough, mask, (0, 0), mask.shape, first, second)
    assert found @ [160, 120, 1] == pytest.approx([167.5, 124], abs=0.3)
