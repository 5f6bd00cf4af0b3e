# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from ood_perception.frames.class_mask import class_mask, class_names
from ood_perception.result import NO_CLASS, SURROUNDINGS

CLASSES = ('road', 'pavement', 'building')


def slow(classes, semantic, heatmap, instances, around, threshold):
    """The rule, pixel by pixel."""
    mask, confidence = np.zeros(heatmap.shape, int), np.zeros(heatmap.shape, int)
    for place in np.ndindex(heatmap.shape):
        known = 0 if semantic is None else int(semantic[place])
        probability = int(heatmap[place])
        owner = 0 if instances is None else int(instances[place])
        name = ''
        if owner:
            name = 'hazard' if SURROUNDINGS[around[owner]] == 'on_road' else 'unknown'
        elif probability / 255 >= threshold:
            name = 'unknown'
        ids = {n: i for i, n in class_names(classes).items()}
        mask[place] = ids[name] if name else known
        confidence[place] = probability if name else 255 - probability
    return mask, confidence


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('with_classes', [True, False])
@pytest.mark.parametrize('with_objects', [True, False])
@pytest.mark.parametrize('threshold', [0.0, 0.5, 1.0])
def test_every_pixel_has_the_class_of_the_rule(seed, with_classes, with_objects, threshold):
    rng = np.random.default_rng(seed)
    classes = CLASSES if with_classes else ()
    semantic = rng.choice([0, 1, 2, NO_CLASS], (12, 17)).astype(np.uint8) if with_classes else None
    heatmap = rng.integers(0, 256, (12, 17), dtype=np.uint8)
    around = {7: 0, 300: 1, 65535: 2, 9: 3}
    instances = rng.choice([0, 0, 0, *around], (12, 17)).astype(np.uint16)
    instances = instances if with_objects else None
    ids, codes = np.array(list(around)), np.array(list(around.values()), np.uint8)
    mask, confidence = class_mask(classes, semantic, heatmap, instances, ids, codes, threshold)
    expected = slow(classes, semantic, heatmap, instances, around, threshold)
    assert np.array_equal(mask, expected[0])
    assert np.array_equal(confidence, expected[1])
    assert mask.dtype == confidence.dtype == np.uint8
    assert set(np.unique(mask)) <= set(class_names(classes))
    if semantic is not None:
        assert not np.shares_memory(mask, semantic)


@pytest.mark.parametrize('size', [(6, 8), (24, 32), (12, 16), (5, 7)])
def test_another_size_is_unpadded_and_invents_no_class(size):
    semantic = np.zeros((12, 16), np.uint8)
    semantic[:, 8:] = 2
    instances = np.zeros((12, 16), np.uint16)
    instances[4:8, 4:8] = 5
    heatmap = np.where(instances > 0, 200, 10).astype(np.uint8)
    found = class_mask(CLASSES, semantic, heatmap, instances, [5], [1], 0.5, size)
    for image in found:
        assert image.shape == size
        assert image.flags['C_CONTIGUOUS']
    assert set(np.unique(found[0])) == {0, 2, 4}
    assert set(np.unique(found[1])) == {200, 245}


def test_names():
    assert class_names(CLASSES) == {
        0: 'road', 1: 'pavement', 2: 'building', 3: 'unknown', 4: 'hazard', 255: 'unlabeled',
    }  # fmt: skip
    assert class_names(()) == {0: 'known', 1: 'unknown', 2: 'hazard', 255: 'unlabeled'}
    with pytest.raises(ValueError, match='got 254'):
        class_names(['x'] * 254)
