# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The published forms of outlier exposure and augmentation, on cases worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ood_training.checkpointing import TrainingError
from ood_training.data import CutOuts
from research.coco import Coco, open_objects
from research.published_exposure import (
    RPL_SCALES,
    UemAugmentation,
    anomaly_mix,
    centre,
    colour_jitter,
    rpl_mix,
    tight,
)


class One:
    """A single object: a green rectangle of 20 x 30 pixels in a picture of 100 x 80."""

    name = 'one'

    def __init__(self, height: int = 20, width: int = 30) -> None:
        self.rgba = np.zeros((80, 100, 4), np.uint8)
        self.rgba[10 : 10 + height, 5 : 5 + width] = (0, 255, 0, 255)

    def __len__(self) -> int:
        return 1

    def load(self, index: int) -> np.ndarray:
        return self.rgba


def scene(height: int = 60, width: int = 90) -> tuple[np.ndarray, np.ndarray]:
    label = np.full((height, width), 255, np.uint8)
    label[height // 2 :] = 0
    return np.full((height, width, 3), 7, np.uint8), label


def test_anomaly_mix_pastes_whole_native_and_hard():
    rng, image, label = np.random.default_rng(0), *scene()
    places = set()
    for _ in range(60):
        new, got = anomaly_mix(rng, image, label, One(), probability=1.0)
        mask = got == 254
        assert mask.sum() == 600  # native size, void overwritten, nothing cut off
        assert (new[mask] == (0, 255, 0)).all()
        assert (new[~mask] == 7).all()
        assert np.array_equal(got[~mask], label[~mask])
        places.add(tuple(np.argwhere(mask)[0]))
    assert len(places) > 50
    assert (label != 254).all()  # the caller's arrays are left alone


def test_anomaly_mix_probability_and_too_large_objects():
    rng, image, label = np.random.default_rng(0), *scene()
    pasted = [(anomaly_mix(rng, image, label, One())[1] == 254).any() for _ in range(2000)]
    assert np.mean(pasted) == pytest.approx(0.2, abs=0.03)
    for size in ((61, 10), (10, 91)):
        new, got = anomaly_mix(rng, image, label, One(*size), probability=1.0)
        assert new is image or np.array_equal(new, image)
        assert np.array_equal(got, label)


def test_rpl_mix_crops_scales_and_pastes():
    rng, (image, label) = np.random.default_rng(1), scene(64, 96)
    areas = set()
    for _ in range(80):
        new, got = rpl_mix(rng, image, label, One(), crop=48)
        assert new.shape == (48, 48, 3)
        assert got.shape == (48, 48)
        areas.add(int((got == 254).sum()))
    assert RPL_SCALES.count(0.5) == 2
    # 20x30 scaled by 1/10, 1/8, 1/4, 1/2; at 3/4 the centre crop of 48 cuts it.
    assert areas >= {2 * 3, 5 * 8 - 5, 10 * 15} or len(areas) >= 4


def test_rpl_mirrors_four_times_of_five():
    rng = np.random.default_rng(0)
    image, label = scene(48, 48)
    label[:] = 0
    label[:, 0] = 1
    flipped = []
    for _ in range(1500):
        _, got = rpl_mix(rng, image, label, One(2, 2), crop=48, scales=[0.5])
        flipped.append(got[0, -1] == 1 or got[-1, -1] == 1)
    assert np.mean(flipped) == pytest.approx(0.8, abs=0.03)


def test_uem_patches_are_crops_with_an_ignored_border():
    rng = np.random.default_rng(0)
    image, label = np.full((1024, 2048, 3), 90, np.uint8), np.zeros((1024, 2048), np.uint8)
    augment = UemAugmentation(jitter=0.0)
    for _ in range(4):
        new, got = augment(rng, image, label)
        assert new.shape == (518, 1036, 3)
        assert got.shape == (518, 1036)
        assert (got[3:515, 6:1030] == 0).all()
        assert (got == 255).sum() == 518 * 1036 - 512 * 1024
        assert (new[got == 255] == 0).all()


def test_small_frames_are_padded():
    new, got = UemAugmentation()(np.random.default_rng(0), *scene())
    assert new.shape == (518, 1036, 3)
    assert set(np.unique(got)) <= {0, 255}


@pytest.mark.parametrize(('have', 'want'), [(7, 4), (4, 7), (5, 5), (8, 5), (5, 8)])
def test_centre(have, want):
    array = np.arange(1, have + 1)[:, None]
    got = centre(array, (want, 1), 0)[:, 0]
    assert len(got) == want
    kept = got[got > 0]
    assert np.array_equal(kept, np.arange(kept[0], kept[0] + min(have, want)))
    assert kept[0] - 1 == max(have - want, 0) // 2


def test_jitter_keeps_form_and_changes_hue():
    rng = np.random.default_rng(0)
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 200
    seen = {tuple(colour_jitter(rng, image, 0.2, 0.5)[0, 0].argsort()) for _ in range(60)}
    assert len(seen) >= 3  # red became green or blue as well: any hue
    grey = np.full((8, 8, 3), 128, np.uint8)
    out = colour_jitter(rng, grey, 0.2, 0.5)
    assert out.dtype == np.uint8
    assert np.ptp(out) <= 1


# ---------------------------------------------------------------------------------- objects


def test_tight():
    rgb, mask = tight(One().load(0))
    assert rgb.shape == (20, 30, 3)
    assert mask.all()
    assert tight(np.zeros((4, 4, 4), np.uint8))[1].size == 0


@pytest.fixture
def coco(tmp_path):
    def image(i: int, height: int = 480) -> dict:
        (tmp_path / 'train2017').mkdir(exist_ok=True)
        pixels = np.full((height, 500, 3), 50, np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'train2017' / f'{i}.png')
        return {'id': i, 'file_name': f'{i}.png', 'height': height, 'width': 500}

    def item(image_id: int, category: int, x: int) -> dict:
        polygon = [[x, 10, x + 10, 10, x + 10, 20, x, 20]]
        number = 100 * image_id + category
        about = {'id': number, 'image_id': image_id, 'category_id': category}
        return {**about, 'segmentation': polygon}

    tree = {
        'categories': [
            {'id': 1, 'name': 'person'},
            {'id': 2, 'name': 'dog'},
            {'id': 3, 'name': 'train'},
        ],
        'images': [image(1), image(2), image(3, 479), image(4), image(5)],
        'annotations': [
            *(item(1, 2, 10), item(1, 3, 40)),
            *(item(2, 2, 10), item(2, 1, 40)),  # a person: dropped
            item(3, 2, 10),  # too small
            item(4, 3, 10),  # a train is allowed
        ],
    }
    (tmp_path / 'annotations').mkdir()
    path = tmp_path / 'annotations' / 'instances_train2017.json'
    path.write_text(json.dumps(tree))
    return tmp_path


def test_coco_is_prepared_as_published(coco):
    objects = open_objects(f'coco:{coco}')
    names = [row['file_name'] for row in objects.rows]
    assert sorted(names) == ['1.png', '4.png']
    rgba = objects.load(names.index('1.png'))
    assert (rgba[..., 3] == 255).sum() == 200  # both instances at once
    assert tight(rgba)[1].shape == (10, 40)


def test_coco_errors_name_the_file(coco):
    (coco / 'train2017' / '4.png').unlink()
    with pytest.raises(TrainingError, match=r'4\.png: missing \(1 of 2'):
        open_objects(f'coco:{coco}')
    path = coco / 'annotations' / 'instances_train2017.json'
    path.write_text('{}')
    with pytest.raises(TrainingError, match='cannot be read as COCO'):
        Coco(coco / 'train2017', path)


def test_empty_sets_of_objects_are_refused(tmp_path):
    with pytest.raises(TrainingError, match='no RGBA cut-outs'):
        open_objects(str(tmp_path))
    Image.fromarray(np.zeros((3, 3, 4), np.uint8)).save(tmp_path / 'a.png')
    with pytest.raises(TrainingError, match=r'a\.png: alpha is 0 everywhere'):
        CutOuts(tmp_path).check()
    with pytest.raises(TrainingError, match='no such folder'):
        open_objects('rgba:/nowhere')
