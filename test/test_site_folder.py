# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ood_perception.cli.main import build
from ood_perception.labels import Truth
from ood_perception.site_folder import accepted, keep, names, undo
from ood_training.sources import open_frames

RUNNER = CliRunner()


def entry(folder: Path, kind: str, number: int) -> tuple[str, np.ndarray, np.ndarray]:
    image = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    mask = np.zeros((30, 40), bool)
    mask[5:15, 10:20] = True
    return keep(folder, kind, 'front', number, image, mask), image, mask


def test_entries_are_listed_and_taken_back(tmp_path: Path) -> None:
    assert names(tmp_path) == []
    normal, image, mask = entry(tmp_path, 'accepted', 7)
    real, *_ = entry(tmp_path, 'reported', 8)
    assert normal.endswith('_accepted_front_7')
    ((picture, known),) = accepted(tmp_path)
    assert np.array_equal(picture, image)
    assert np.array_equal(known, mask)
    result = RUNNER.invoke(build('site'), ['site', 'list', str(tmp_path)])
    assert normal in result.output
    assert real in result.output
    result = RUNNER.invoke(build('site'), ['site', 'undo', str(tmp_path), normal])
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == [real]
    with pytest.raises(ValueError, match='no entry'):
        undo(tmp_path, normal)
    assert sorted(p.name for p in tmp_path.rglob('*.png')) == [f'{real}.png'] * 2


def test_it_is_a_folder_of_labelled_frames(tmp_path: Path) -> None:
    entry(tmp_path, 'reported', 8)
    _, label = open_frames(f'folder:{tmp_path}', 'train', 'benchmark').load(0)
    assert set(np.unique(label)) == {254, Truth.IGNORE}


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    name, *_ = entry(tmp_path, 'accepted', 7)
    (tmp_path / 'images' / f'{name}.png').write_bytes(b'no picture')
    with pytest.raises(ValueError, match=name):
        list(accepted(tmp_path))
