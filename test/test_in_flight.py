# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Several frames at once: in order, each by itself, with the same results as one by one."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch

from ood_perception.in_flight import Places, Row, Turn, ahead, ready
from ood_perception.pipeline import Pipeline
from ood_perception.profile import ImageConfig, Profile
from ood_simulation.proving_ground import ProvingGround

WAIT = 30.0


@pytest.mark.parametrize('workers', [1, 2, 5])
def test_work_goes_on_side_by_side_and_passes_in_order(workers: int) -> None:
    row, passed, inside = Row(workers), [], []
    most = 0
    lock = threading.Lock()
    pauses = random.Random(0)

    def work(number: int, pause: float, turn: Turn) -> int:
        nonlocal most
        with lock:
            inside.append(number)
            most = max(most, len(inside))
        time.sleep(pause)
        turn.wait()
        passed.append(number)
        with lock:
            inside.remove(number)
        return number

    def begin(number: int) -> Future[int]:
        pause = pauses.random() / 50
        return row.submit(lambda turn: work(number, pause, turn))

    assert [(i, i) for i in range(30)] == list(ahead(range(30), begin, workers))
    assert passed == list(range(30))
    assert (most > 1) == (workers > 1)
    row.close()


def test_one_that_fails_before_its_turn_holds_up_nobody() -> None:
    row = Row(3)

    def work(number: int, turn: Turn) -> int:
        if number % 3 == 1:
            raise ValueError(f'number {number}')
        turn.wait()
        return number

    futures = [row.submit(lambda turn, n=n: work(n, turn)) for n in range(9)]  # type: ignore[misc]
    for number, future in enumerate(futures):
        if number % 3 == 1:
            with pytest.raises(ValueError, match=f'number {number}'):
                future.result(WAIT)
        else:
            assert future.result(WAIT) == number


def test_several_who_submit_at_once_hold_up_nobody() -> None:
    row, passed = Row(2), []

    def work(turn: Turn) -> None:
        turn.wait()
        passed.append(turn.number)

    def submit() -> None:
        for _ in range(200):
            row.submit(work)
            with row.draw() as turn:  # as a direct call does
                turn.wait()

    threads = [threading.Thread(target=submit, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    row.close()
    assert len(passed) == 800
    assert passed == sorted(passed)


def test_with_one_worker_the_callers_thread_works() -> None:
    row, me = Row(), threading.get_ident()
    assert row.submit(lambda turn: threading.get_ident()).result(0) == me

    def fail(turn: Turn) -> None:
        raise RuntimeError('lost')

    with pytest.raises(RuntimeError, match='lost'):
        row.submit(fail).result(0)
    assert row.submit(lambda turn: turn.wait()).result(0) is None


@pytest.mark.parametrize('count', [0, -1])
def test_a_row_needs_a_worker(count: int) -> None:
    with pytest.raises(ValueError, match=f'in_flight: expected 1 or more, got {count}'):
        Row(count)


def test_ahead_looks_no_farther_than_it_was_told() -> None:
    begun: list[int] = []

    def begin(item: int) -> Future[int]:
        begun.append(item)
        return ready(10 * item)

    found = ahead(iter(range(6)), begin, 3)
    assert next(found) == (0, 0)
    assert begun == [0, 1, 2]
    assert list(found) == [(i, 10 * i) for i in range(1, 6)]
    assert list(ahead([], begin, 3)) == []


def test_one_who_is_alone_waits_for_all_and_all_for_it() -> None:
    places, log = Places(2), []
    both, leave = threading.Barrier(3), threading.Event()

    def beside() -> None:
        with places.one():
            both.wait(WAIT)
            leave.wait(WAIT)
            log.append('beside')

    def alone() -> None:
        with places.alone():
            log.append('alone')
            time.sleep(0.02)
            log.append('alone still')

    threads = [threading.Thread(target=beside) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait(WAIT)
    threads += [threading.Thread(target=alone) for _ in range(2)]
    for thread in threads[2:]:
        thread.start()
    leave.set()
    for thread in threads:
        thread.join(WAIT)
    assert log == ['beside'] * 2 + ['alone', 'alone still'] * 2


@pytest.fixture(scope='module')
def drive() -> list[np.ndarray]:
    ground = ProvingGround(seed=1042, width=320, height=240, rate=10)
    return [np.ascontiguousarray(ground.frame(i).image) for i in range(220, 232)]


def small(name: str = 'compact') -> Profile:
    profile = Profile.load(name)
    tracking = dataclasses.replace(profile.tracking, options={'min_hits': 2, 'start': 0.3})
    return dataclasses.replace(profile, image=ImageConfig(240), tracking=tracking)


@pytest.mark.parametrize('engine', ['eager', 'openvino', 'openvino_int8'])
def test_frames_in_flight_give_what_they_give_one_by_one(
    engine: str, drive: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine != 'eager':
        pytest.importorskip('openvino')
    monkeypatch.setenv('OOD_ENGINE_CACHE', str(tmp_path))
    one = Pipeline.from_profile(small(), 'cpu', engine)
    several = Pipeline.from_profile(small(), 'cpu', engine, in_flight=3)
    stamps = [(i + 1) * 100_000_000 for i in range(len(drive))]
    expected = [
        one([image], ['drive'], stamps=[stamp])[0]
        for image, stamp in zip(drive, stamps, strict=True)
    ]
    futures = [
        several.submit([image], ['drive'], stamps=[stamp])
        for image, stamp in zip(drive, stamps, strict=True)
    ]
    found = [future.result(WAIT)[0] for future in futures]
    several.close()
    assert several.in_flight == 3
    assert sum(len(result.ids) for result in expected) > 0
    # other threads add in another order, and one step of rounding moves an outline by a pixel
    pixels = 1 if engine == 'openvino_int8' else 0
    for want, got in zip(expected, found, strict=True):
        np.testing.assert_allclose(got.score, want.score, atol=0.05)
        np.testing.assert_array_equal(got.ids, want.ids)
        np.testing.assert_allclose(got.boxes, want.boxes, atol=pixels)
        assert (got.instances != want.instances).mean() < 0.001


def test_a_bad_frame_loses_no_other(drive: list[np.ndarray]) -> None:
    pipeline = Pipeline.from_profile(small(), 'cpu', 'eager', in_flight=2)
    bad = np.zeros((4, 4), np.uint8)
    futures = [pipeline.submit([image], ['a']) for image in (drive[0], bad, drive[1])]
    assert futures[0].result(WAIT)[0].heatmap.shape == (240, 320)
    with pytest.raises(ValueError, match=r'expected uint8 \(H, W, 3\)'):
        futures[1].result(WAIT)
    assert futures[2].result(WAIT)[0].heatmap.shape == (240, 320)
    pipeline.reset('a')
    assert pipeline([drive[2]], ['a'])[0].heatmap.shape == (240, 320)
    pipeline.close()
    with pytest.raises(RuntimeError, match='a pipeline that was closed'):
        pipeline.submit([drive[0]], ['a'])


def test_a_memory_learns_all_frames_in_flight(drive: list[np.ndarray]) -> None:
    pipeline = Pipeline.from_profile(small('compact_novelty'), 'cpu', 'eager', in_flight=2)
    pipeline.score.start()  # type: ignore[operator]
    for future in [pipeline.submit([image], ['a'], wants=('score',)) for image in drive]:
        future.result(WAIT)
    pipeline.score.stop()  # type: ignore[operator]
    assert pipeline.score.frames == len(drive)
    pipeline.close()


def test_threads_are_given_back(drive: list[np.ndarray]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        pipeline = Pipeline.from_profile(small(), 'cpu', 'eager', in_flight=2)
        pipeline.warm_up([(240, 320)])
        pipeline([drive[0]])
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
