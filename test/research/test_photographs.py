# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from ood_training.checkpointing import TrainingError
from research import photographs
from research.robot7 import training_part

FIELDS = ('image', 'label', 'split', 'licence', 'source')


def make_folder(folder: Path, rows: list[dict[str, str]], value: int = 0) -> Path:
    for row in rows:
        for name in (row['image'], row['label']):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / row['image']), np.full((8, 12, 3), 90, np.uint8))
        cv2.imwrite(str(folder / row['label']), np.full((8, 12), value, np.uint8))
    write_index(folder, rows)
    return folder


def write_index(folder: Path, rows: list[dict[str, str]], fields=FIELDS) -> None:
    with (folder / 'INDEX.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, fields, extrasaction='ignore')
        writer.writeheader()
        writer.writerows(rows)


def row(number: int, licence: str = 'CC BY 4.0', split: str = 'train') -> dict[str, str]:
    return {
        'image': f'images/p_{number:012d}.png',
        'label': f'labels/p_{number:012d}.png',
        'split': split,
        'licence': licence,
        'source': f'http://example.org/{number}',
    }


def test_reads_pairs_with_their_licence(tmp_path):
    folder = make_folder(tmp_path, [row(1), row(25, split='val')], 254)
    found = photographs.read_index(folder)
    assert [p.split for p in found] == ['train', 'val']
    assert [p.key for p in found] == ['1', '25']
    image, label = photographs.load(found)[0]
    assert image.shape == (8, 12, 3)
    assert (label == 254).all()


@pytest.mark.parametrize('licence', ['', '   '])
def test_an_empty_licence_is_named_before_training(tmp_path, licence):
    folder = make_folder(tmp_path, [row(1), row(2, licence)])
    with pytest.raises(TrainingError, match=r'p_0*2\.png.*no licence.*1 of 2'):
        photographs.read_index(folder)


@pytest.mark.parametrize('kind', ['image', 'label'])
def test_a_missing_file_is_named_before_training(tmp_path, kind):
    rows = [row(1), row(2)]
    folder = make_folder(tmp_path, rows)
    (folder / rows[1][kind]).unlink()
    with pytest.raises(TrainingError, match=rf'p_0*2\.png.*missing \({kind}\)'):
        photographs.read_index(folder)


@pytest.mark.parametrize('column', FIELDS)
def test_a_missing_column_is_named(tmp_path, column):
    folder = make_folder(tmp_path, [row(1)])
    write_index(folder, [row(1)], [f for f in FIELDS if f != column])
    with pytest.raises(TrainingError, match=column):
        photographs.read_index(folder)


@pytest.mark.parametrize('value', [7, 100, 253])
def test_a_label_outside_the_vocabulary_is_named(tmp_path, value):
    folder = make_folder(tmp_path, [row(1)], value)
    with pytest.raises(TrainingError, match=rf'p_0*1\.png: label value {value}'):
        photographs.load(photographs.read_index(folder))


@pytest.mark.parametrize(
    'licence', ['not stated', 'CC BY-NC 2.0', 'CC BY-ND 2.0', 'CC BY-SA 2.0', 'cc-by?']
)
def test_free_weights_refuse_a_picture_with_another_licence(tmp_path, licence):
    found = photographs.read_index(make_folder(tmp_path, [row(1), row(2, licence)]))
    with pytest.raises(TrainingError, match=r'p_0*2\.png: licence'):
        training_part('lums_road', found, free=True)
    assert len(training_part('lums_road', found, free=False)) == 2


def test_of_a_mixed_folder_the_free_pictures_are_chosen(tmp_path):
    rows = [row(n, 'CC BY 2.0' if n % 2 else 'CC BY-NC 2.0') for n in range(1, 41)]
    found = photographs.read_index(make_folder(tmp_path, rows))
    chosen = training_part('coco_context', found, free=True)
    assert chosen
    assert {p.licence for p in chosen} == {'CC BY 2.0'}
    held_out = [p for p in found if photographs.in_held_out_fifth(p.key)]
    assert held_out
    assert not {p.image for p in chosen} & {p.image for p in held_out}


def test_validation_pictures_are_not_trained_on(tmp_path):
    found = photographs.read_index(make_folder(tmp_path, [row(1), row(2, split='val')]))
    assert [p.key for p in training_part('dhcn_indoor', found, free=True)] == ['1']


def test_cutouts_are_split_by_picture_and_licence(tmp_path):
    fields = (
        'file', 'coco_image_id', 'fill', 'border_sides', 'licence', 'commercial_use_allowed',
    )  # fmt: skip
    rows = []
    for number in range(30):
        name = f'{number}.png'
        cv2.imwrite(str(tmp_path / name), np.full((6, 6, 4), number, np.uint8))
        values = (name, str(number), '0.9', '', 'CC BY 2.0', str(number % 2))
        rows.append(dict(zip(fields, values, strict=True)))
    write_index(tmp_path, rows, fields)
    ids = {
        (held, free): {int(c[0, 0, 0]) for c in photographs.load_cutouts(tmp_path, held, free)}
        for held, free in ((True, False), (False, False), (False, True))
    }
    assert ids[True, False] | ids[False, False] == set(range(30))
    assert not ids[True, False] & ids[False, False]
    assert ids[False, True] == {n for n in ids[False, False] if n % 2}
