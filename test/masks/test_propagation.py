# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Detections moved by optical flow, against the exact motion of made and rendered frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ood_perception.frames.flow import flow_between, grey_picture, small
from ood_perception.masks import propagation
from ood_perception.masks.propagation import Propagator, propagate
from ood_perception.result import Result

HEIGHT, WIDTH = 240, 320


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Structure of every size, as pictures of the world have it."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell in (64, 32, 16, 8):
        coarse = rng.normal(0, cell, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + total, 0, 255).astype(np.uint8)


def frame_with(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc on a textured ground, moved by `matrix` (2, 3); and its mask."""
    disc = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.circle(disc, (140, 120), 40, 1.0, -1)
    mask = cv2.warpAffine(disc, matrix, (WIDTH, HEIGHT)) > 0.5
    thing = cv2.warpAffine(texture(1), matrix, (WIDTH, HEIGHT))
    return np.where(mask[..., None], thing, texture(2)), mask


STILL = np.array([[1, 0, 0], [0, 1, 0]], np.float64)


def similarity(shift: tuple[float, float], scale: float = 1.0, turn: float = 0.0) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((140, 120), turn, scale)
    matrix[:, 2] += shift
    return matrix


def result_of(mask: np.ndarray, name: int = 7) -> Result:
    ys, xs = np.nonzero(mask)
    return Result(
        heatmap=mask.astype(np.uint8) * 200,
        instances=mask.astype(np.uint16) * name,
        boxes=np.array([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]], np.float32),
        confidences=np.array([0.9], np.float32),
        ids=np.array([name], np.int32),
        areas=np.array([mask.sum()], np.int32),
        mean_scores=np.array([3.0], np.float32),
        surroundings=np.array([1], np.uint8),
    )


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize(
    'motion',
    [
        similarity((0, 0)),
        similarity((9, -5)),
        similarity((-14, 6)),
        similarity((3, 2), scale=1.15),
        similarity((-2, 4), scale=0.87),
        similarity((4, 0), turn=8.0),
    ],
    ids=['still', 'right', 'left', 'nearer', 'farther', 'turned'],
)
def test_object_is_followed_with_its_shape_and_rows(motion):
    (first, mask), (second, expected) = frame_with(STILL), frame_with(motion)
    moved = propagate(result_of(mask), grey_picture(first), grey_picture(second))
    assert iou(moved.instances == 7, expected) > 0.9
    assert iou(moved.heatmap > 100, expected) > 0.75
    assert moved.ids.tolist() == [7]
    assert moved.confidences.tolist() == pytest.approx([0.9])
    assert moved.surroundings.tolist() == [1]
    ys, xs = np.nonzero(moved.instances)
    assert moved.boxes.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]
    assert moved.areas.tolist() == [len(ys)]


def test_what_is_gone_is_dropped_not_smeared():
    first, mask = frame_with(STILL)
    moved = propagate(result_of(mask), grey_picture(first), grey_picture(texture(9)))
    assert moved.instances.max() == 0
    assert len(moved.ids) == len(moved.boxes) == len(moved.areas) == 0
    assert (moved.heatmap > 100).sum() < 0.2 * mask.sum()


def test_what_leaves_the_frame_is_dropped():
    first, mask = frame_with(similarity((150, 0)))
    second, left = frame_with(similarity((176, 0)))
    assert left.sum() > 0
    moved = propagate(result_of(mask), grey_picture(first), grey_picture(second))
    if len(moved.ids):
        assert moved.boxes[0, 2] <= WIDTH
        assert iou(moved.instances == 7, left) > 0.5


def test_nothing_found_stays_nothing():
    empty = np.zeros((HEIGHT, WIDTH), np.uint16)
    result = Result(heatmap=empty.astype(np.uint8), instances=empty, ids=np.zeros(0, np.int32))
    moved = propagate(result, grey_picture(texture(1)), grey_picture(texture(1)))
    assert moved.instances.max() == 0
    assert moved.heatmap.max() == 0


def test_result_without_objects_asked_for_moves_its_heatmap_alone():
    (first, mask), (second, expected) = frame_with(STILL), frame_with(similarity((9, 0)))
    result = Result(heatmap=mask.astype(np.uint8) * 255)
    moved = propagate(result, grey_picture(first), grey_picture(second))
    assert iou(moved.heatmap > 127, expected) > 0.8
    assert moved.instances is None


@pytest.mark.parametrize('size', [(16, 16), (17, 33), (480, 640), (1080, 1920)])
def test_any_size_of_frame(size):
    image = texture(3, max(size[0], 64), max(size[1], 64))[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
    moved = propagate(result_of(mask), grey_picture(image), grey_picture(image))
    assert iou(moved.instances == 7, mask) > 0.9


def test_propagator_joins_a_late_detection_to_the_present_frame():
    follow, frames = Propagator(), {}
    for k in range(6):
        image, mask = frame_with(similarity((4 * k, 0)))
        frames[k] = mask
        follow.saw(k * 33_000_000 + 1, image)
        assert follow.at(k * 33_000_000 + 1) is None  # nothing was detected yet
    follow.found(1, result_of(frames[0]))  # of the first frame, while the camera is at the sixth
    stamp = 5 * 33_000_000 + 1
    assert iou(follow.at(stamp).instances == 7, frames[5]) > 0.9
    exact = result_of(frames[5], name=8)
    follow.found(stamp, exact)
    assert follow.at(stamp) is exact
    follow.reset()
    assert follow.at(stamp) is None


def test_propagator_ignores_detections_of_frames_it_does_not_know_and_keeps_few(monkeypatch):
    monkeypatch.setattr(propagation, 'KEPT', 4)
    follow = Propagator()
    image, mask = frame_with(STILL)
    for stamp in range(1, 11):
        follow.saw(stamp, image)
    follow.found(2, result_of(mask))
    assert follow.at(10) is None
    follow.found(8, result_of(mask))
    assert follow.at(10) is not None


def test_a_camera_that_changes_its_size_starts_afresh():
    follow = Propagator()
    image, mask = frame_with(STILL)
    follow.saw(1, image)
    follow.found(1, result_of(mask))
    follow.saw(2, texture(1, 120, 160))
    assert follow.at(2) is None


def test_rendered_drive_keeps_its_outlines_over_three_frames():
    from ood_simulation.proving_ground import ProvingGround

    found = []
    drive = ProvingGround(seed=500_000, width=480, height=360, rate=30.0, unknowns=5.0)
    for start in (30, 60):
        first, then = drive.frame(start), drive.frame(start + 3)
        names = [i for i in np.unique(first.instances) if i]
        result = Result(instances=first.instances, ids=np.array(names, np.int32))
        moved = propagate(result, grey_picture(first.image), grey_picture(then.image))
        for name in names:
            expected = then.instances == name
            if expected.sum() > 100:
                found.append(iou(moved.instances == name, expected))
    assert len(found) >= 5
    assert np.mean(found) > 0.8, found


def test_the_same_pictures_give_the_same_flow_and_no_motion():
    grey = small(grey_picture(texture(4)))
    forward, backward, followed = flow_between(grey, grey)
    assert np.abs(forward).max() < 0.1
    assert np.abs(backward).max() < 0.1
    assert followed.mean() > 0.99


def runner(x: int) -> tuple[np.ndarray, np.ndarray]:
    """A thing that runs over the ground: in eight frames more than its own radius."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(mask, (x, 120), 35, 1, -1)
    thing = np.roll(texture(1), x - 140, axis=1)
    return np.where(mask[..., None] > 0, thing, texture(2)), mask > 0


@pytest.mark.parametrize('late', [0, 3])
def test_a_thing_that_has_gone_far_is_followed_over_the_frames_between(late):
    """Also where its detection comes some frames late."""
    propagator = Propagator()
    frames = [runner(60 + 5 * i) for i in range(9)]
    for i, (frame, _) in enumerate(frames):
        propagator.saw(i + 1, frame)
        if i == late:
            propagator.found(1, result_of(frames[0][1]))
        if i > late:
            moved = propagator.at(i + 1)
            assert iou(moved.instances == 7, frames[i][1]) > 0.75, i
    alone = propagate(
        result_of(frames[0][1]), grey_picture(frames[0][0]), grey_picture(frames[8][0])
    )
    assert iou(alone.instances == 7, frames[8][1]) < 0.75
    again, before = propagator.at(9), propagator.at(6)
    assert np.array_equal(again.instances, moved.instances)
    assert iou(before.instances == 7, frames[5][1]) > 0.75
