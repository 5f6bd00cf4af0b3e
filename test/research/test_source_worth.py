# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from research.robot7 import NAMES, WEIGHTS
from research.source_worth import FIELDS, Mixture, append, finished, short

KEYS = [(0, index) for index in range(3000)]


class Pool(list):
    """Numbers that are drawn by (epoch, index)."""

    def __getitem__(self, key):
        return super().__getitem__(key[1])


def mixture(left_out: str = '', seed: int = 1) -> Mixture:
    pools = {n: Pool({'name': (n, i)} for i in range(30)) for n in NAMES if n != left_out}
    return Mixture(pools, len(KEYS), seed)


def test_pools_are_drawn_by_their_shares():
    drawn = [mixture().draw(key) for key in KEYS]
    shares = [sum(name == n for name, _ in drawn) / len(KEYS) for n in NAMES]
    assert shares == pytest.approx([WEIGHTS['compact'][n] for n in NAMES], abs=0.03)
    assert {index for _, index in drawn} == set(range(30))
    assert drawn == [mixture().draw(key) for key in KEYS]
    assert drawn != [mixture(seed=2).draw(key) for key in KEYS]
    assert mixture()[KEYS[7]] == {'name': drawn[7]}


@pytest.mark.parametrize('left_out', ['rendered', 'lums_road'])
def test_a_source_left_out_is_never_drawn_and_the_other_draws_stay(left_out):
    every, without = mixture(), mixture(left_out)
    others = np.zeros(len(NAMES))
    for key in KEYS:
        before, after = every.draw(key), without.draw(key)
        assert after[0] != left_out
        if before[0] == left_out:
            others[NAMES.index(after[0])] += 1
        else:
            assert after == before
    shares = np.array([WEIGHTS['compact'][n] * (n != left_out) for n in NAMES])
    assert others / others.sum() == pytest.approx(shares / shares.sum(), abs=0.12)


def test_a_row_is_one_run(tmp_path):
    table = tmp_path / 'new' / 'table.csv'
    assert finished(table) == set()
    row = dict.fromkeys(FIELDS, 0.5) | {'left_out': 'rooms', 'seed': 1}
    append(table, row)
    append(table, row | {'left_out': 'nothing', 'seed': 2})
    assert finished(table) == {'rooms:1', 'nothing:2'}
    assert table.read_text().count('left_out') == 1


def test_short_runs_keep_the_recipe():
    preset = short(20, 40, 4, seed=3)
    assert (preset.segmentor.trainer.steps, preset.uem.trainer.steps) == (20, 40)
    assert preset.uem.trainer.warmup_steps == 4
    assert preset.uem.trainer.optimizer == 'muon'
    assert preset.uem.unknown_weight == 3.0
