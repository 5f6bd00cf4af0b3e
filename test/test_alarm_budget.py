# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from ood_perception import alarm_budget
from ood_perception.alarm_budget import BLOCK, Peaks, exceeds, load, threshold_for


def test_an_alarm_is_new_and_held_for_three_looks() -> None:
    peaks = Peaks()
    seen = {  # look: confidences by id
        0: {1: 0.9}, 1: {1: 0.4}, 2: {1: 0.8}, 3: {2: 0.99}, 4: {2: 0.99},
        60: {3: 0.6}, 61: {3: 0.7}, 62: {3: 0.5}, 63: {3: 0.7}, 64: {3: 0.9}, 65: {3: 0.95},
    }  # fmt: skip
    for i in range(151):  # 10 Hz
        found = seen.get(i, {})
        peaks.look('camera', 100 + i / 10, found.keys(), found.values())
    # 1 is held at 0.4; 2 for two looks only; 3 at 0.5, then at 0.7, and counts where it began
    assert peaks.finished() == [0.4, 0.7, 0.0]
    assert peaks.watched == pytest.approx(15.0)


def test_an_object_that_stays_is_one_alarm_and_a_pause_does_not_count() -> None:
    peaks = Peaks()
    for i in range(200):
        peaks.look('camera', i / 10 + (1000 if i >= 100 else 0), [7], [0.8])
    assert peaks.watched == pytest.approx(19.8 + alarm_budget.GAP, abs=0.11)
    assert [value > 0 for value in peaks.values] == [True] + [False] * (len(peaks.values) - 1)


def test_cameras_share_the_blocks_and_not_the_ids() -> None:
    peaks = Peaks()
    for i in range(6):
        peaks.look('left', i / 10, [1], [0.9 if i % 2 else 0.2])
        peaks.look('right', i / 10 + 0.05, [1], [0.6])
    assert peaks.values == [0.6]


def test_blocks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alarm_budget, 'KEPT', 10)
    peaks = Peaks()
    for i in range(200):
        peaks.look('camera', float(i), [i], [0.5])
        peaks.look('camera', float(i), [1000], [0.25 + i / 1000])
    assert len(peaks.values) == 10
    assert max(peaks.values) == 0.0  # what began in a block that was dropped counts no more


@pytest.mark.parametrize('n', [59, 60, 200, 1000])
@pytest.mark.parametrize('per_hour', [12.0, 60.0, 200.0])
def test_threshold_is_the_lowest_that_the_bound_allows(n: int, per_hour: float) -> None:
    peaks = np.round(np.random.default_rng(n).beta(2, 5, n), 6)
    share = per_hour * BLOCK / 3600
    verdict = threshold_for(peaks.tolist(), per_hour)
    assert verdict.promised
    candidates = np.unique([0.0, *peaks, *(peaks + 2e-6)])
    kept = [c for c in candidates if (np.sum(peaks >= c) + 1) / (n + 1) <= share + 1e-12]
    assert verdict.threshold == pytest.approx(min(kept), abs=2e-6)


def test_the_promise_is_kept_in_the_mean_whatever_the_distribution() -> None:
    rng = np.random.default_rng(1)
    for draw in (rng.random, lambda k: rng.beta(0.3, 3, k), lambda k: rng.integers(0, 5, k) / 5):
        share, n, broken = 0.1, 39, 0
        for _ in range(4000):
            blocks = draw(n + 1)
            verdict = threshold_for(blocks[:n].tolist(), share * 3600 / BLOCK)
            broken += blocks[n] >= verdict.threshold
        # four standard errors
        assert broken / 4000 <= share + 4 * math.sqrt(share * (1 - share) / 4000)


def test_a_short_time_is_told_with_what_is_needed() -> None:
    peaks = np.random.default_rng(0).beta(2, 8, 12).tolist()  # one minute
    verdict = threshold_for(peaks, 1.0)
    assert not verdict.promised
    assert 'estimated, not promised' in verdict.text
    assert '1 minutes of normal operation can promise 55.4' in verdict.text
    assert 'it takes 59.9 minutes' in verdict.text
    assert verdict.threshold > max(peaks)
    assert threshold_for([0.1] * 719, 1.0).promised
    assert not threshold_for([0.1] * 718, 1.0).promised


def test_the_estimate_follows_an_exponential_tail() -> None:
    """Against the predictive law of scipy, and kept in the mean where the tail is exponential."""
    rng = np.random.default_rng(2)
    share, n, broken, trials = 0.005, 40, 0, 4000
    for _ in range(trials):
        odds = rng.exponential(0.7, n + 1) - 2
        blocks = 1 / (1 + np.exp(-odds))
        verdict = threshold_for(blocks[:n].tolist(), share * 3600 / BLOCK, least=0.0)
        broken += blocks[n] >= verdict.threshold
    assert not verdict.promised
    assert 0.2 * share < broken / trials < 2 * share
    ordered = np.sort(blocks[:n])[::-1]
    odds = np.log(ordered / (1 - ordered))
    excess = odds[odds > np.median(odds)] - np.median(odds)
    k = len(excess)
    reach = stats.lomax(k, scale=k * excess.mean()).isf(share / (k / n))
    wanted = max(1 / (1 + np.exp(-np.median(odds) - reach)), ordered[0])
    assert verdict.threshold == pytest.approx(wanted, abs=2e-6)


def test_an_estimate_is_never_below_what_is_in_use() -> None:
    assert threshold_for([0.0] * 12, 1.0, least=0.5).threshold == 0.5
    assert threshold_for([0.0] * 12, 1.0, least=0.7).threshold == 0.7
    assert threshold_for([0.0] * 1000, 10.0, least=0.7).threshold < 1e-6  # a promise may be lower
    assert threshold_for([], 1.0).threshold == 0.5
    with pytest.raises(ValueError, match='more than 0'):
        threshold_for([0.1], 0.0)


def test_a_budget_that_silences_everything_says_so() -> None:
    verdict = threshold_for([1.0] * 12, 1.0)
    assert verdict.threshold > 1
    assert 'nothing is published' in verdict.text


def test_the_rate_breaks_the_budget_where_chance_would_not() -> None:
    for expected in (0.2, 1.0, 7.5, 120.0):
        for alarms in (0, 1, 2, 5, 15, 150):
            surprise = stats.poisson(expected).sf(alarms - 1)
            assert exceeds(alarms, 0.5, 2 * expected) == (surprise < 0.01)
    assert not exceeds(0, 0.0, 1.0)


def test_measurements_are_read_back_and_others_refused(tmp_path: Path) -> None:
    peaks = Peaks()
    for i in range(120):
        peaks.look('camera', i / 10, [1], [0.123456789])
    path = tmp_path / 'folder' / 'alarms.json'
    peaks.save(path, 'compact 0123')
    assert load(path, 'compact 0123') == [0.123457, 0.0]
    assert [p.name for p in path.parent.iterdir()] == ['alarms.json']
    with pytest.raises(ValueError, match="measured with 'compact 0123'"):
        load(path, 'another')
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match='no peaks of alarms'):
        load(path, 'compact 0123')
    with pytest.raises(FileNotFoundError):
        load(tmp_path / 'none.json', 'compact 0123')
