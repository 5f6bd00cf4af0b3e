# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The light prompt generator: targets, loss, and that it learns; scenes' score maps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import generalized_box_iou

from ood_perception.masks.boxes import overlaps
from ood_perception.masks.detection_prompts import decode, propose
from ood_perception.masks.score_detector import STRIDE, ScoreDetector, detector_input
from research.mask_validation import match
from research.prompts import (
    CANDIDATES,
    Examples,
    calibrate,
    detection_loss,
    example,
    recoloured,
    split,
    targets,
    train_prompts,
)
from research.score_scenes import Scene, compose, spoil
from research.small_networks import train_small

torch.set_num_threads(1)


def scene(seed=0, size=(96, 128)):
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.uint8)
    for number in (1, 2):
        x, y, w, h = rng.integers([0, 0, 20, 20], [80, 60, 45, 35])
        labels[y : y + h, x : x + w] = number
    return Scene(np.zeros((*size, 3), np.uint8), labels, spoil(labels, rng))


def planes(one):
    image = torch.from_numpy(one.image).permute(2, 0, 1)[None]
    return detector_input(image, torch.from_numpy(one.probability).float()[None])


def wanted_of(*boxes, tiny=(), height=10, width=14):
    corners = (np.array(b, np.float32).reshape(-1, 4) for b in (boxes, tiny))
    return targets(*corners, height, width)


def test_targets_say_where_and_how_large():
    boxes = (8, 12, 28, 24), (40, 0, 44, 6)
    heat, sides, weight, asked = wanted_of(*boxes, tiny=[(33, 32, 36, 36)])
    # the centre (18, 18) lies in place column 4, row 4, whose own middle is (18, 18)
    assert heat[4, 4] == heat[0, 10] == 1
    assert sides[:, 4, 4].tolist() == [10, 6, 10, 6]
    assert weight[4, 4] == 1
    assert float(heat.max()) <= 1
    assert (weight[heat <= 0.3] == 0).all()
    assert (sides[:, weight > 0] > 0).all()
    # around what is too small for anyone a centre costs nothing
    assert (asked[7:11, 7:11] == 0).all()
    assert float(asked.sum()) == 140 - float((asked == 0).sum())
    assert asked[4, 4] == asked[0, 10] == 1
    empty = wanted_of()
    assert not empty[0].any()
    assert not empty[2].any()
    # an object beside one that is too small is asked for all the same
    assert wanted_of((8, 12, 28, 24), tiny=[(16, 16, 20, 20)])[3][4, 4] == 1


def test_perfect_answers_decode_to_the_boxes():
    boxes = [[8.0, 12.0, 28.0, 24.0], [40.0, 4.0, 52.0, 16.0]]
    heat, sides, weight, asked = wanted_of(*boxes)
    logit = torch.where(heat == 1, 9.0, -9.0)
    output = torch.cat([logit[None], sides])[None]
    found, scores = decode(output, 4)
    assert sorted(found[0, :2].tolist()) == boxes
    assert (scores[0, :2] > 0.99).all()
    assert (scores[0, 2:] < 0.01).all()
    assert float(detection_loss(output, heat[None], sides[None], weight[None], asked[None])) < 0.02


def test_loss_equals_its_formula():
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(1, 5, 10, 14, generator=generator)
    output[:, 1:] = output[:, 1:].abs() + 0.5
    heat, sides, weight, asked = wanted_of((8, 12, 28, 24), tiny=[(44, 4, 48, 8)])
    p = output[0, 0].sigmoid().double()
    focal = 0.0
    for probability, wanted, counts in zip(
        p.flatten(), heat.double().flatten(), asked.flatten(), strict=True
    ):
        if wanted > 0.999:
            focal -= float((1 - probability) ** 2 * probability.log())
        elif counts:
            focal -= float((1 - wanted) ** 4 * probability**2 * (1 - probability).log())
    sign, total = torch.tensor([-1.0, -1, 1, 1]), 0.0
    for y, x in (weight > 0).nonzero().tolist():
        pair = (output[0, 1:, y, x] * sign)[None], (sides[:, y, x] * sign)[None]
        total += float((1 - generalized_box_iou(*pair)) * weight[y, x])
    expected = focal + 2 * total / float(weight.sum())
    got = detection_loss(output, *(part[None] for part in (heat, sides, weight, asked)))
    assert float(got) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ('times', 'crop'), [(1, (96, 128)), (1, (64, 96)), (1, (500, 500)), (8, (2000, 2000))]
)
def test_examples_are_mirrored_scaled_and_shifted_with_their_boxes(times, crop):
    labels = np.zeros((96, 128), np.uint8)
    labels[40:64, 36:68] = 1
    labels = labels.repeat(times, 0).repeat(times, 1)
    labels[-20, 90:99] = 2  # too few pixels to be asked for
    odds = np.where(labels == 1, 0.98, 0.02).astype('f2')
    one = Scene(np.zeros((*labels.shape, 3), np.uint8), labels, odds)
    # 768 lines are reduced, as they are when boxes are proposed
    whole = {1: (96, 128), 8: (540, 720)}[times]
    places, areas = set(), set()
    for seed in range(16):
        planes, heat, sides, weight, asked = example(one, np.random.default_rng(seed), crop)
        height, width = (min(a, b) for a, b in zip(crop, whole, strict=True))
        assert planes.shape == (4, height, width)
        assert heat.shape == (height // 4, width // 4)
        if not (heat == 1).any():
            continue
        ((y, x),) = (heat == 1).nonzero().tolist()
        assert weight[y, x] == asked[y, x] == 1
        centre = torch.tensor([x, y, x, y]) * STRIDE + STRIDE / 2
        box = centre + sides[:, y, x] * torch.tensor([-1, -1, 1, 1])
        rows, columns = (planes[3] > 0).nonzero(as_tuple=True)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == pytest.approx([float(v) for v in seen], abs=1.51)
        places.add((y, x))
        areas.add(round(float((box[2] - box[0]) * (box[3] - box[1]))))
    assert len(places) > 4
    assert len(areas) > 3


def test_pictures_differ_in_colour_and_stay_what_they_show():
    image = scene_picture()
    found = [recoloured(image, np.random.default_rng(seed)) for seed in range(40)]
    assert {one.dtype for one in found} == {np.dtype(np.uint8)}
    for one in found:
        assert np.corrcoef(one.ravel(), image.ravel())[0, 1] > 0.8
    assert any((one[..., 0] == one[..., 1]).all() for one in found)
    assert np.std([one.mean() for one in found]) > 5


def scene_picture():
    """Grey from dark to bright, uint8 (48, 64, 3)."""
    return np.linspace(30, 220, 64).astype(np.uint8)[None, :, None].repeat(48, 0).repeat(3, 2)


def test_the_detector_sees_colours_and_odds_in_whole_strides():
    image = torch.full((1, 3, 9, 14), 192, dtype=torch.uint8)
    probability = torch.full((1, 9, 14), 0.5)
    probability[0, 0:2, 6:8] = 0.9
    inputs = detector_input(image, probability)
    assert inputs.shape == (1, 4, 12, 16)
    assert (inputs[:, :3] == 1).all()
    expected = torch.zeros(9, 14)
    expected[0:2, 6:8] = float(np.log(9)) / 4
    torch.testing.assert_close(inputs[0, 3, :9, :14], expected)
    assert torch.equal(inputs[0, :, 9:], inputs[0, :, 8:9].expand(-1, 3, -1))
    # a large frame is reduced, NaN is known
    nothing = detector_input(
        torch.zeros(1, 3, 1080, 1211, dtype=torch.uint8), torch.full((1, 1080, 1211), torch.nan)
    )
    assert nothing.shape == (1, 4, 540, 608)
    torch.testing.assert_close(nothing[:, :3], torch.full((1, 3, 540, 608), -2.0))
    assert float(nothing[:, 3].max()) < -1.9


def test_scores_are_calibrated_in_order(tmp_path):
    scenes = [scene(i) for i in range(24)]
    torch.manual_seed(0)
    model = fit_briefly(scenes, tmp_path)
    with torch.no_grad():
        before = model(planes(scenes[0]))
        calibrate(model, [Scene(s.image, 0 * s.labels, s.probability) for s in scenes])
        assert torch.equal(model(planes(scenes[0])), before)  # nothing fits: left alone
        calibrate(model, scenes)
        after = model(planes(scenes[0]))
    assert torch.equal(after[:, 1:], before[:, 1:])
    order = before[0, 0].flatten().argsort()
    assert (after[0, 0].flatten()[order].diff() >= -1e-5).all()
    assert not torch.allclose(after[:, 0], before[:, 0])
    # Platt's fit: as many boxes are expected to fit as do.
    expected, hits = 0.0, 0
    for one in scenes:
        with torch.no_grad():
            output = model(planes(one))
        kept = propose(output, 96, 128, CANDIDATES, CANDIDATES)
        expected += float(kept.confidences.sum())
        overlap = overlaps(torch.from_numpy(one.boxes(40)), kept.boxes[0][kept.valid[0]])[0]
        hits += len(match(overlap.numpy(), 0.5))
    assert expected == pytest.approx(hits, rel=0.05, abs=1.0)


def test_scenes_are_kept_aside_for_the_calibration():
    scenes = [scene(i) for i in range(20)]
    learnt, kept = split(scenes, np.random.default_rng(0))
    assert len(kept) == 2
    assert not {id(s) for s in learnt} & {id(s) for s in kept}
    assert split(scenes[:3], np.random.default_rng(0)) == (scenes[:3], scenes[:3])
    made, kept = split(lambda rng: scenes[int(rng.integers(20))], np.random.default_rng(0))
    assert callable(made)
    assert len(kept) == 100


class Same(torch.utils.data.Dataset):
    """One sample again and again."""

    def __init__(self, sample):
        self.sample = sample

    def __len__(self):
        return 1

    def __getitem__(self, key):
        return self.sample


def fit_briefly(scenes, folder):
    model = ScoreDetector((8, 16))
    path = folder / 'l.safetensors'
    train_small(model, Examples(scenes, 0), detection_loss, path, 40, 4, 0.01)
    return model


def test_it_learns_and_is_repeatable(tmp_path):
    scenes = [scene(i) for i in range(3)]
    states = []
    for _ in range(2):
        model = train_prompts(scenes, tmp_path / 'l.safetensors', batch=1, steps=3)
        states.append(list(model.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    torch.manual_seed(0)
    inputs, *wanted = example(scenes[0], np.random.default_rng(0))
    same, losses = {'input': inputs, 'wanted': wanted, 'name': 'it'}, []

    def loss_of(*args):
        loss = detection_loss(*args)
        losses.append(float(loss.detach()))
        return loss

    path = tmp_path / 'o.safetensors'
    train_small(ScoreDetector((8, 16)), Same(same), loss_of, path, 40, 1, 0.01)
    assert losses[-1] < 0.3 * losses[0]


def test_spoilt_truth_is_a_likely_score_map():
    labels = np.zeros((96, 128), np.uint8)
    labels[30:70, 40:90] = 1
    inside, outside = [], []
    for seed in range(20):
        probability = spoil(labels, np.random.default_rng(seed))
        assert probability.shape == labels.shape
        assert 0 <= probability.min() <= probability.max() <= 1
        inside.append(float(probability[labels > 0].mean()))
        outside.append(float(probability[labels == 0].mean()))
    assert np.mean(inside) > 0.5
    assert np.mean(outside) < 0.2


def test_compose_labels_just_what_it_pastes():
    rng = np.random.default_rng(0)
    frame = np.full((96, 128, 3), 100, np.uint8)
    thing = np.full((50, 40, 4), 255, np.uint8)
    for _ in range(6):
        image, labels = compose(frame, [thing], rng)
        assert image.shape == (96, 128, 3)
        assert image.dtype == np.uint8
        assert labels.max() <= 4
    kernel = np.ones((9, 9), np.uint8)
    far = cv2.dilate(labels, kernel) == 0
    near = cv2.erode((labels > 0).astype(np.uint8), kernel) > 0
    if near.any() and far.any():
        assert image[near].mean() > image[far].mean() + 20
