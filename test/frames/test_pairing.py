# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Which depth belongs to an image, and what the stamps of a camera say."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ood_perception.frames.stamps import KEPT, DepthPairing, StampWatch

MS = 1_000_000


def depth(milliseconds: float) -> SimpleNamespace:
    seconds, rest = divmod(round(milliseconds * MS), 1000 * MS)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=seconds, nanosec=rest))
    )


@pytest.mark.parametrize('depth_first', [True, False])
@pytest.mark.parametrize('stamp', [40, 41, 75, 119, 5000])
def test_the_nearest_depth_is_found_whichever_comes_first(stamp, depth_first):
    pairing, messages = DepthPairing(), [depth(t) for t in range(0, 200, 40)]
    match = None if depth_first else pairing.open(stamp * MS)
    for message in messages:
        pairing.put(message)
        if match is not None and match.settled:
            break
    match = match or pairing.open(stamp * MS)
    best = min(abs(stamp - t) for t in range(0, 200, 40))
    assert match.gap == best * MS
    assert match.within(best / 1e3)
    assert not match.within((best - 0.5) / 1e3)


def test_an_image_waits_no_longer_than_for_the_first_depth_past_it():
    pairing = DepthPairing()
    assert not pairing.open(0).within(1e9)
    match = pairing.open(100 * MS)
    assert not pairing.put(depth(80))
    assert not match.settled
    assert pairing.put(depth(113))
    assert match.settled
    assert match.gap == 13 * MS
    exact = pairing.open(200 * MS)
    assert pairing.put(depth(200))
    assert exact.settled
    assert exact.within(0.0)


def test_a_dropped_image_is_forgotten():
    pairing = DepthPairing()
    match = pairing.open(50 * MS)
    assert len(pairing._open) == 1
    del match
    assert len(pairing._open) == 0
    assert not pairing.put(depth(60))


def test_depth_of_a_slow_pipeline_is_not_pushed_out():
    """An image keeps its depth while many more arrive, as happens during a long inference."""
    pairing = DepthPairing()
    match = pairing.open(0)
    for i in range(10 * KEPT):
        pairing.put(depth(33 * i))
    assert match.gap == 0


def test_depth_from_before_a_bag_began_again_does_not_end_the_wait():
    pairing = DepthPairing()
    pairing.put(depth(90_000))
    match = pairing.open(1_000 * MS)
    assert not match.settled
    pairing.put(depth(1_010))
    assert match.within(0.02)
    pairing.clear()
    assert pairing.open(1_000 * MS).gap is None


def test_of_equal_stamps_the_newest_counts():
    pairing = DepthPairing()
    messages = [depth(0) for _ in range(3)]
    for message in messages:
        pairing.put(message)
    assert pairing.open(0).message is messages[-1]


def kinds(stamps) -> list[str]:
    watch = StampWatch()
    return [watch.look(round(s * 1e9))[0] for s in stamps]


@pytest.mark.parametrize('rate', [1, 10, 30, 120])
@pytest.mark.parametrize('start', [0.5, 1e9])
def test_jitter_and_repeats_are_no_new_beginning(rate, start):
    rng = np.random.default_rng(rate)
    stamps = start + np.arange(300) / rate
    reordered = stamps.copy()
    jitter = min(0.4, 3 / rate)
    for i in range(0, 299, 7):
        reordered[i + 1] = reordered[i] - rng.uniform(0, jitter)
    assert set(kinds(reordered)) <= {'steady', 'jitter'}
    assert 'jitter' in kinds(reordered)
    assert set(kinds(np.repeat(stamps, 3))) == {'steady'}


@pytest.mark.parametrize('length', [0.9, 5, 100])
@pytest.mark.parametrize('rate', [2, 10, 30])
@pytest.mark.parametrize('start', [100.0, 1.7e9])
def test_every_loop_of_a_bag_begins_anew(length, rate, start):
    once = start + np.arange(0, length, 1 / rate)
    if once[-1] - once[0] < 0.5:
        pytest.skip('a bag of one picture')
    found = kinds(np.tile(once, 4))
    assert found.count('restart') == 3
    assert set(found) == {'steady', 'restart'}


def test_a_simulation_that_is_reset_goes_on_past_its_old_end():
    stamps = [*np.arange(1, 50, 0.1), *np.arange(0.1, 80, 0.1), *np.arange(0.1, 3, 0.1)]
    found = kinds(stamps)
    assert found.count('restart') == 2
    assert set(found) == {'steady', 'restart'}


@pytest.mark.parametrize('apart', [0.7, 3.0, 1.6e9])
@pytest.mark.parametrize('every', [1, 2, 30, 200])
def test_two_clocks_on_one_topic_reset_at_most_once(apart, every):
    """One publisher sends each frame, the other every so many frames, `apart` seconds behind."""
    stamps = []
    for i in range(3000):
        stamps.append(2e9 + i / 30)
        if i % every == 0:
            stamps.append(2e9 + i / 30 - apart)
    found = kinds(stamps)
    assert found.count('restart') <= 1
    assert 'mixed' in found


def test_absent_stamps_change_nothing():
    assert kinds([0, 0, 5, 0, 5.1, 0]) == [
        'absent',
        'absent',
        'steady',
        'absent',
        'steady',
        'absent',
    ]
