# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from ood_perception.labels import truth_of
from ood_training.label_maps import load_label_map
from ood_training.uem import llr_loss
from research.compact_data import Samples
from research.machines import draw_thing, mix
from research.rooms import draw_room
from research.scenes import Scenes, Source, Things
from research.segmentor import segmentation_loss
from research.weather import backlight, grey_camera, lens_cast, motion_blur, night, rain

CLASSES = ['ground', 'other_ground', 'person', 'vehicle', 'roadside', 'structure', 'sky']


def frame(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 255, (240, 320, 3)).astype(np.uint8)
    label = np.zeros((240, 320), np.uint8)
    label[:90], label[90:130, :100], label[100:160, 150:210] = 6, 5, 3
    label[200:, 300:] = 255
    return image, label


@pytest.mark.parametrize(
    ('name', 'pairs'),
    [
        ('camvid_robot7', {0: 6, 1: 5, 2: 4, 3: 0, 4: 1, 5: 5, 6: 4, 7: 4, 8: 3, 9: 2, 11: 255}),
        ('cityscapes_robot7', {7: 0, 8: 1, 11: 5, 17: 4, 22: 1, 23: 6, 24: 2, 26: 3, 0: 255}),
        ('mapillary_robot7', {13: 0, 15: 1, 17: 5, 19: 2, 27: 6, 45: 4, 55: 3, 1: 254, 64: 255}),
        ('ade20k_robot7', {1: 5, 3: 6, 4: 0, 6: 6, 7: 0, 13: 2, 21: 3, 20: 254, 42: 254, 0: 255}),
        ('robot7', {**{i: i for i in range(7)}, 254: 254, 255: 255}),
    ],
)  # fmt: skip
def test_label_maps_into_robot7(name, pairs):
    label_map = load_label_map(name)
    assert label_map.classes == CLASSES
    values = np.array([list(pairs)], np.uint8)
    assert label_map.apply(values, 'x').tolist() == [list(pairs.values())]


def test_void_never_trains_and_unknown_is_unknown():
    label = torch.tensor([[[0, 254, 255, 6]]])
    assert truth_of(label).tolist() == [[[0, 1, 255, 0]]]
    logits = torch.zeros(1, 7, 1, 4, requires_grad=True)
    segmentation_loss(logits, label).backward()
    assert logits.grad[0, :, 0, 0].abs().sum() > 0
    assert logits.grad[0, :, 0, 1:3].abs().sum() == 0
    score = torch.zeros(1, 1, 4, requires_grad=True)
    llr_loss(score, truth_of(label)).backward()
    assert score.grad[0, 0, 2] == 0
    assert score.grad[0, 0, 1] < 0 < score.grad[0, 0, 0]


def test_samples_follow_the_weights_of_the_sources():
    def mark(value):
        return lambda rng, image, label: (image, np.full_like(label, value))

    makers = [(3.0, [frame()], mark(0)), (1.0, [frame()], mark(1)), (0.0, [frame()], mark(2))]
    samples = Samples(makers, 400, seed=1)
    found = [int(samples[0, i]['label'][0, 0]) for i in range(400)]
    shares = np.bincount(found, minlength=3) / 400
    assert shares == pytest.approx([0.75, 0.25, 0], abs=0.08)
    again = Samples(makers, 400, seed=1)
    assert found == [int(again[0, i]['label'][0, 0]) for i in range(400)]


def test_scenes_hold_unknown_things_and_leave_the_frames_alone():
    source = Source('x', 1.0, [frame(0), frame(1)])
    cutout = np.full((40, 30, 4), 255, np.uint8)
    things = Things.collect([cutout], [source])
    assert {value for _, value in things.known} == {3}
    before = [(image.copy(), label.copy()) for image, label in source.pairs]
    make = Scenes(source, things, (96, 128))
    values, largest = set(), 0.0
    for seed in range(60):
        image, label = make(np.random.default_rng(seed), *source.pairs[seed % 2])
        assert image.shape == (96, 128, 3)
        assert label.shape == (96, 128)
        values |= set(np.unique(label).tolist())
        largest = max(largest, float((label == 254).mean()))
    assert {0, 3, 254, 255} <= values <= {*range(7), 254, 255}
    assert largest > 0.4
    for (image, label), (old_image, old_label) in zip(source.pairs, before, strict=True):
        assert (image == old_image).all()
        assert (label == old_label).all()


def test_vehicles_of_a_source_can_be_void():
    source = Source('x', 1.0, [frame()], void_vehicles=1.0)
    things = Things([np.full((20, 20, 4), 255, np.uint8)])
    make = Scenes(source, things, (96, 128))
    labels = [make(np.random.default_rng(s), *source.pairs[0])[1] for s in range(10)]
    assert not any((label == 3).any() for label in labels)


def test_things_are_cutouts_of_every_shape():
    piece = np.full((50, 40, 4), 200, np.uint8)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        thing = mix(rng, [piece]) if seed % 4 == 0 else draw_thing(rng, [piece])
        assert thing.dtype == np.uint8
        assert thing.shape[2] == 4
        assert (thing[..., 3] > 127).sum() > 100


def test_rooms_are_known_all_over():
    for seed in range(6):
        image, label = draw_room(np.random.default_rng(seed), 120, 160)
        assert image.shape == (120, 160, 3)
        assert set(np.unique(label).tolist()) <= {0, 4, 5, 6}


@pytest.mark.parametrize('change', [night, backlight, lens_cast, rain, motion_blur, grey_camera])
def test_weather_keeps_shape_and_numbers(change):
    x = np.random.default_rng(0).random((60, 80, 3), np.float32)
    for seed in range(5):
        found = change(np.random.default_rng(seed), x.copy())
        assert found.shape == x.shape
        assert np.isfinite(found).all()
