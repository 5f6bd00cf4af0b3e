# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
import torch

from ood_perception.masks import Tracker, fuse
from ood_perception.masks.tracking import LAST_ID, PAUSE, glance, settle
from ood_perception.result import Result


def frame(*rectangles, size=(120, 160), scores=None):
    """Instances of axis-parallel rectangles (x1, y1, x2, y2)."""
    logits = torch.full((len(rectangles), *size), -5.0)
    for row, rectangle in zip(logits, rectangles, strict=True):
        x1, y1, x2, y2 = (int(v) for v in rectangle)
        row[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = 5
    scores = torch.tensor(scores or [0.9 - 0.01 * i for i in range(len(rectangles))])
    return fuse(logits, scores, torch.ones(len(rectangles), dtype=torch.bool), torch.zeros(size))


def id_at(instances, x, y):
    return int(instances.labels[int(y), int(x)])


def test_moving_objects_keep_their_ids_whatever_the_order_of_scores():
    tracker = Tracker()
    first = tracker.update(frame((10, 10, 40, 40), (100, 60, 130, 90)))
    a, b = id_at(first, 25, 25), id_at(first, 115, 75)
    assert {a, b} == {1, 2}
    for step in range(1, 20):
        near, far = (10 + 2 * step, 10, 40 + 2 * step, 40), (100 - step, 60, 130 - step, 90)
        scores = [0.3, 0.9] if step % 2 else [0.9, 0.3]
        now = tracker.update(frame(near, far, scores=scores))
        assert id_at(now, 25 + 2 * step, 25) == a
        assert id_at(now, 115 - step, 75) == b
        assert sorted(now.ids.tolist()) == [a, b]
        # rows and labels tell the same story
        for row in range(2):
            x1, y1, x2, y2 = now.boxes[row].tolist()
            assert id_at(now, (x1 + x2) / 2, (y1 + y2) / 2) == now.ids[row]


def test_small_fast_object_without_any_overlap():
    tracker = Tracker()
    ids = {int(tracker.update(frame((10 + 9 * i, 50, 18 + 9 * i, 58))).ids[0]) for i in range(14)}
    assert len(ids) == 1


def test_hidden_object_gets_its_id_back_then_is_forgotten():
    tracker = Tracker(max_missed=3)
    places = [(10 + 4 * i, 20, 40 + 4 * i, 50) for i in range(30)]
    known = int(tracker.update(frame(places[0])).ids[0])
    for i in range(1, 5):
        tracker.update(frame(places[i]))
    for _ in range(3):
        assert len(tracker.update(frame()).ids) == 0
    assert tracker.update(frame(places[8])).ids.tolist() == [known]
    for _ in range(4):
        tracker.update(frame())
    assert len(tracker) == 0
    assert tracker.update(frame(places[13])).ids.tolist() != [known]


def test_half_hidden_then_hidden_object_gets_its_id_back():
    """What one edge did as the object went behind something is no motion."""
    tracker = Tracker()
    whole, half = (60, 40, 84, 64), (60, 40, 70, 64)
    known = int(tracker.update(frame(whole)).ids[0])
    for rectangle in (whole, whole, whole, half):
        tracker.update(frame(rectangle))
    for _ in range(4):
        tracker.update(frame())
    assert tracker.update(frame(whole)).ids.tolist() == [known]


def test_crossing_objects_do_not_swap():
    tracker = Tracker()
    for i in range(31):
        left, right = (4 * i, 20, 4 * i + 24, 50), (136 - 4 * i, 60, 160 - 4 * i, 90)
        now = tracker.update(frame(left, right))
        assert id_at(now, 4 * i + 12, 35) == 1
        assert id_at(now, 148 - 4 * i, 75) == 2


def test_new_size_or_reset_starts_tracks_but_no_ids_afresh():
    tracker = Tracker()
    for _ in range(3):
        tracker.update(frame((10, 10, 40, 40), (60, 60, 90, 90)))
    assert len(tracker) == 2
    assert tracker.update(frame((5, 5, 30, 30), size=(60, 60))).ids.tolist() == [3]
    tracker.update(frame((35, 35, 55, 55), size=(60, 60)))
    tracker.reset()
    assert len(tracker) == 0
    assert tracker.update(frame((35, 35, 55, 55), size=(60, 60))).ids.tolist() == [5]


def noise(seed, size=(120, 160)):
    """A picture with structure, uint8 (3, H, W)."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed)) * 255
    return torch.nn.functional.interpolate(coarse, size)[0].to(torch.uint8)


def test_a_scene_cut_starts_tracks_but_no_ids_afresh():
    tracker, thing = Tracker(), frame((10, 10, 40, 40))
    assert [int(tracker.update(thing, noise(0)).ids[0]) for _ in range(3)] == [1, 1, 1]
    # the same thing at the same place, but another picture: another thing
    assert tracker.update(thing, noise(1)).ids.tolist() == [2]
    assert tracker.update(thing, noise(1)).ids.tolist() == [2]
    assert len(tracker) == 1
    never = Tracker(cut=-1)
    assert [int(never.update(thing, noise(i)).ids[0]) for i in range(3)] == [1, 1, 1]


def test_light_motion_and_plain_pictures_are_no_cuts():
    tracker, thing = Tracker(), frame((10, 10, 40, 40))
    picture = noise(0)
    for image in (picture, (picture * 0.4).to(torch.uint8), picture.roll(6, 2), None, picture):
        assert tracker.update(thing, image).ids.tolist() == [1]
    plain = torch.full((3, 120, 160), 90, dtype=torch.uint8)
    for image in (plain, picture, plain):
        assert tracker.update(thing, image).ids.tolist() == [1]


def test_ids_of_the_frame_may_have_gaps():
    first = frame((10, 10, 40, 40), (60, 60, 90, 90))
    gaps = torch.tensor([0, 7, 3], dtype=torch.int32)
    odd = first._replace(labels=gaps[first.labels], ids=gaps[1:])
    now = Tracker().update(odd)
    assert now.ids.tolist() == [1, 2]
    assert torch.equal(now.labels, first.labels)


def test_memory_is_bounded():
    tracker = Tracker(max_missed=1000, max_tracks=10)
    rng = np.random.default_rng(0)
    for _ in range(60):
        x, y = rng.integers(0, 100, 2)
        tracker.update(frame((x, y, x + 12, y + 12)))
        tracker.update(frame())
        assert len(tracker) <= 10


def test_ids_stay_within_16_bits_and_skip_those_in_use():
    tracker = Tracker(max_missed=0)
    tracker.update(frame((10, 10, 40, 40)))
    tracker._last_id = LAST_ID - 1
    both = tracker.update(frame((10, 10, 40, 40), (60, 60, 90, 90)))
    assert sorted(both.ids.tolist()) == [1, LAST_ID]
    three = tracker.update(frame((10, 10, 40, 40), (60, 60, 90, 90), (110, 10, 140, 40)))
    assert sorted(three.ids.tolist()) == [1, 2, LAST_ID]


@pytest.mark.parametrize('count', [0, 1, 1000])
def test_any_number_of_instances(count):
    rng = np.random.default_rng(1)
    tracker = Tracker()
    logits = torch.full((count, 60, 80), -1.0)
    for row in logits:
        x, y = rng.integers(0, 60, 2)
        row[y : y + 5, x : x + 5] = 1
    for _ in range(2):
        valid = torch.ones(count, dtype=torch.bool)
        now = tracker.update(fuse(logits, torch.rand(count), valid, torch.zeros(60, 80)))
    assert len(set(now.ids.tolist())) == len(now.ids)
    assert len(tracker) <= 256


@pytest.mark.parametrize(
    'options',
    [
        {'min_iou': 1.0},
        {'max_missed': -1},
        {'max_tracks': 0},
        {'cut': 1.0},
        {'min_hits': 0},
        {'start': 1.1},
    ],
)
def test_wrong_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Tracker(**options)


OLD, NEW = (10, 10, 40, 40), (100, 60, 130, 90)
STEP = 50_000_000


@pytest.mark.parametrize('min_hits', [1, 2, 3])
def test_what_comes_into_a_stream_counts_when_it_was_seen_often_enough(min_hits):
    tracker, stamps = Tracker(min_hits=min_hits), iter(range(STEP, 100 * STEP, STEP))
    assert tracker.update(frame(OLD), stamp=next(stamps)).ids.tolist() == [1]
    for _ in range(3):
        assert tracker.update(frame(OLD), stamp=next(stamps)).ids.tolist() == [1]
    for seen in range(1, 5):
        now = tracker.update(frame(OLD, NEW), stamp=next(stamps))
        assert now.ids.tolist() == [1, 2 if seen >= min_hits else 0]
        assert id_at(now, 115, 75) == now.ids[1]
    # what was hidden for a moment counts at once
    tracker.update(frame(OLD), stamp=next(stamps))
    assert tracker.update(frame(OLD, NEW), stamp=next(stamps)).ids.tolist() == [1, 2]


@pytest.mark.parametrize('gap', [None, 0, -STEP, PAUSE + 1])
def test_what_is_in_a_frame_that_follows_none_counts_at_once(gap):
    tracker, stamp = Tracker(min_hits=3), 0
    for _ in range(5):
        stamp += STEP
        tracker.update(frame(OLD), stamp=stamp)
    now = tracker.update(frame(OLD, NEW), stamp=None if gap is None else stamp + gap)
    assert 0 not in now.ids.tolist()


def test_an_object_of_a_stream_counts_once_it_was_seen_with_confidence():
    tracker, stamp = Tracker(start=0.8), 0
    for confidence, counts in ((0.6, False), (0.79, False), (0.8, True), (0.6, True)):
        stamp += STEP
        now = tracker.update(frame(OLD, scores=[confidence]), stamp=stamp)
        assert now.ids.tolist() == [1 if counts else 0], confidence
        assert bool(now.labels.any()) == counts
    # the evidence belongs to the object, not to the stream
    now = tracker.update(frame(OLD, NEW, scores=[0.6, 0.7]), stamp=stamp + STEP)
    assert now.ids.tolist() == [0, 1]  # the most confident first


def test_in_a_picture_by_itself_every_object_counts():
    tracker = Tracker(start=0.8)
    for _ in range(3):
        assert 0 not in tracker.update(frame(OLD, scores=[0.6])).ids.tolist()


def test_an_object_that_does_not_count_yet_is_not_in_a_result():
    """Of three objects the middle one is new; an empty row stands behind them."""
    instances = frame(OLD, (60, 10, 90, 40), NEW)
    rows = torch.tensor([1, 2, 3, 0], dtype=torch.int32)
    result = Result(
        instances=instances.labels.numpy().astype(np.uint16),
        boxes=np.arange(16, dtype=np.float32).reshape(4, 4),
        confidences=np.arange(4, dtype=np.float32),
        ids=rows.numpy().copy(),
        areas=np.arange(4, dtype=np.int32),
        mean_scores=np.arange(4, dtype=np.float32),
        surroundings=np.arange(4, dtype=np.uint8),
    )
    result.boxes[:3] = instances.boxes.numpy()
    seen = glance(instances)._replace(ids=rows)
    settle(result, seen, [7, 0, 9])
    assert result.ids.tolist() == [7, 9]
    assert result.confidences.tolist() == [0, 2]
    assert result.boxes.tolist() == [list(map(float, OLD)), list(map(float, NEW))]
    assert set(np.unique(result.instances)) == {0, 7, 9}
    assert result.instances[25, 25] == 7
    assert result.instances[75, 115] == 9
