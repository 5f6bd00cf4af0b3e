# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from ood_perception.scores.memory import ScoreMemory

STEP = 40_000_000  # ns
H, W = 192, 256


def world(seed: int = 0) -> np.ndarray:
    """A picture with detail at every place, larger than a frame."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (48, 64, 3), np.uint8)
    return cv2.resize(small, (2 * W, 2 * H), interpolation=cv2.INTER_CUBIC)


def frame(picture: np.ndarray, x: int, y: int = 40) -> torch.Tensor:
    """Return uint8 (1, 3, H, W), what a camera at (x, y) sees."""
    return torch.from_numpy(picture[y : y + H, x : x + W].copy()).permute(2, 0, 1)[None]


def spot(x: int, value: float = 4.0) -> torch.Tensor:
    """Return float32 (1, H, W), a score that is high in a square at x."""
    score = torch.full((1, H, W), -4.0)
    score[:, 32:64, x : x + 32] = value
    return score


def test_a_still_camera_gets_the_exponential_mean():
    memory, image = ScoreMemory(0.1), frame(world(), 50)
    maps = [torch.full((1, H, W), value) for value in (2.0, -1.0, 5.0)]
    weight = math.exp(-0.4)
    wanted = maps[0]
    for i, score in enumerate(maps):
        if i:
            wanted = weight * wanted + (1 - weight) * score
        joined = memory(score, image, ['a'], [i * STEP + 1])
        assert joined.dtype == torch.float32
        torch.testing.assert_close(joined, wanted, atol=1e-4, rtol=0)


def test_the_past_moves_with_the_camera():
    memory, picture = ScoreMemory(0.1), world()
    memory(spot(64), frame(picture, 50), ['a'], [1])
    # The camera moves 16 pixels to the right; for this one frame the score misses the thing.
    joined = memory(torch.full((1, H, W), -4.0), frame(picture, 66), ['a'], [1 + STEP])[0]
    weight = math.exp(-0.4)
    assert float(joined[40:56, 56:72].mean()) == pytest.approx(8 * weight - 4, abs=0.3)
    assert float(joined[40:56, 86:94].mean()) == pytest.approx(-4, abs=0.3)  # where it was


def test_edges_are_those_of_the_present_frame():
    memory, image = ScoreMemory(0.1), frame(world(), 50)
    past, now = spot(30), spot(32)
    memory(past, image, ['a'], [1])
    joined = memory(now, image, ['a'], [1 + STEP])[0, 48]
    jump = (joined[1:] - joined[:-1]).argmax()
    assert int(jump) == 31


@pytest.mark.parametrize(
    ('stamp', 'image'),
    [
        (None, frame(world(), 50)),
        (1, frame(world(), 50)),  # the same stamp again
        (1 - STEP, frame(world(), 50)),
        (1 + 100 * STEP, frame(world(), 50)),  # the camera was silent for 4 s
        (1 + STEP, frame(world(9), 50)),  # a cut: nothing leads back
    ],
    ids=['no stamp', 'same stamp', 'older', 'long ago', 'another scene'],
)
def test_what_has_no_past_stands_alone(stamp, image):
    memory = ScoreMemory(0.1)
    memory(spot(64, 9.0), frame(world(), 50), ['a'], [1])
    now = spot(10)
    change = (memory(now, image, ['a'], [stamp]) - now).abs()
    # By chance some pixels of two scenes look alike.
    assert float(change.mean()) < 0.15
    if image.equal(frame(world(), 50)):
        assert not change.any()


def test_cameras_and_resets_keep_apart():
    memory, image = ScoreMemory(0.1), frame(world(), 50)
    memory(spot(64), image, ['a'], [1])
    now = spot(10)
    assert memory(now, image, ['b'], [1 + STEP]).equal(now)
    assert not memory(now, image, ['a'], [1 + STEP]).equal(now)
    memory.reset('a')
    assert memory(now, image, ['a'], [1 + 2 * STEP]).equal(now)
    memory.reset()
    assert memory(now, image, ['b'], [1 + 2 * STEP]).equal(now)


def test_a_batch_is_as_its_frames_by_themselves():
    picture = world()
    both, one, other = ScoreMemory(0.1), ScoreMemory(0.1), ScoreMemory(0.1)
    for i in range(3):
        images = torch.cat([frame(picture, 50 + 4 * i), frame(picture, 90 - 4 * i)])
        scores = torch.cat([spot(20), spot(64)])
        stamp = 1 + i * STEP
        joined = both(scores, images, ['a', 'b'], [stamp, stamp])
        assert joined[:1].equal(one(scores[:1], images[:1], ['a'], [stamp]))
        assert joined[1:].equal(other(scores[1:], images[1:], ['b'], [stamp]))


def test_a_new_frame_size_begins_afresh():
    memory = ScoreMemory(0.1)
    memory(spot(64), frame(world(), 50), ['a'], [1])
    small = torch.zeros(1, 24, 40)
    image = torch.zeros(1, 3, 24, 40, dtype=torch.uint8)
    assert memory(small, image, ['a'], [1 + STEP]).equal(small)
