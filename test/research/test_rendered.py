# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Rendered training frames: labels, what crowded ones show more of, the folder as a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_simulation.proving_ground import ProvingGround
from ood_training.checkpointing import TrainingError
from research.rendered import render

pytestmark = pytest.mark.slow

SEEDS = range(3, 6)
MOVING = (8, 9, 10)


@pytest.fixture(scope='module')
def frames(tmp_path_factory):
    root = tmp_path_factory.mktemp('rendered')
    return {
        crowded: render(root / str(crowded), SEEDS, 4, [(120, 160)], workers=1, crowded=crowded)
        for crowded in (False, True)
    }


def share(frames, values) -> float:
    labels = [frames.load(i)[1] for i in range(len(frames.images))]
    return float(np.mean([np.isin(label, values).mean() for label in labels]))


def test_frames_and_labels(frames) -> None:
    for found in frames.values():
        assert len(found.images) == 12
        image, label = found.load(0)
        assert image.shape == (120, 160, 3)
        assert set(np.unique(label)) <= {*range(11), 254, 255}


def test_crowded_frames_show_more_of_what_is_rare(frames) -> None:
    assert share(frames[True], 254) > share(frames[False], 254)
    assert share(frames[True], MOVING) > 1.5 * share(frames[False], MOVING)


def test_a_second_call_renders_nothing_and_another_request_is_refused(frames) -> None:
    folder = Path(frames[True].images[0]).parent.parent
    times = [path.stat().st_mtime_ns for path in frames[True].images]
    again = render(folder, SEEDS, 4, [(120, 160)], workers=1, crowded=True)
    assert [path.stat().st_mtime_ns for path in again.images] == times
    with pytest.raises(TrainingError, match='holds other frames'):
        render(folder, SEEDS, 3, [(120, 160)], workers=1, crowded=True)


def test_drives_take_turns_with_the_cameras(tmp_path) -> None:
    found = render(tmp_path, range(3), 1, [(96, 128), (60, 100)], workers=1)
    shapes = [found.load(i)[0].shape for i in range(3)]
    assert shapes == [(96, 128, 3), (60, 100, 3), (96, 128, 3)]
    label = found.load(1)[1]
    drawn = ProvingGround(1, 100, 60)
    index = int(np.random.default_rng(1).integers(0, 600, 1)[0])
    assert np.array_equal(label == 254, drawn.frame(index).anomaly == 1)


def test_processes_are_not_forked_from_one_that_may_have_threads(tmp_path, monkeypatch) -> None:
    # a forked child waited for ever for a lock that a thread of its parent had held
    def fork() -> int:
        raise AssertionError('forked')

    monkeypatch.setattr('os.fork', fork)
    found = render(tmp_path, range(2), 1, [(60, 100)], workers=2)
    assert [path.name for path in found.images] == ['00000_0.png', '00001_0.png']
