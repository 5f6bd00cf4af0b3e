# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The light prompt generator: targets, loss, and that it learns; scenes' score maps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import generalized_box_iou

from ood_perception.masks.light_prompts import CELL, STRIDE, LightDetector, decode
from ood_perception.training.fit import fit
from ood_perception.training.prompts import detection_loss, example, targets, train_prompts
from ood_perception.training.score_scenes import Scene, compose, spoil

torch.set_num_threads(1)


def scene(seed=0, size=(96, 128)):
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.uint8)
    for number in (1, 2):
        x, y, w, h = rng.integers([0, 0, 20, 20], [80, 60, 45, 35])
        labels[y : y + h, x : x + w] = number
    return Scene(np.zeros((*size, 3), np.uint8), labels, spoil(labels, rng))


def test_targets_say_where_and_how_large():
    boxes = torch.tensor([[4.0, 6.0, 14.0, 12.0], [20.0, 0.0, 22.0, 3.0]])
    heat, sides, weight = targets(boxes, 10, 14)
    # the centre (9, 9) lies in place column 4, row 4, whose own middle is (9, 9)
    assert heat[4, 4] == heat[0, 10] == 1
    assert sides[:, 4, 4].tolist() == [5, 3, 5, 3]
    assert weight[4, 4] == 1
    assert float(heat.max()) <= 1
    assert (weight[heat <= 0.3] == 0).all()
    assert (sides[:, weight > 0] > 0).all()
    empty = targets(torch.zeros(0, 4), 10, 14)
    assert not empty[0].any()
    assert not empty[2].any()


def test_perfect_answers_decode_to_the_boxes():
    boxes = torch.tensor([[4.0, 6.0, 14.0, 12.0], [20.0, 2.0, 26.0, 8.0]])
    heat, sides, weight = targets(boxes, 10, 14)
    logit = torch.where(heat == 1, 9.0, -9.0)
    found, scores = decode(torch.cat([logit[None], sides])[None], 4)
    assert sorted(found[0, :2].tolist()) == boxes.tolist()
    assert (scores[0, :2] > 0.99).all()
    assert (scores[0, 2:] < 0.01).all()
    loss = detection_loss(
        torch.cat([logit[None], sides])[None], heat[None], sides[None], weight[None]
    )
    assert float(loss) < 0.02


def test_loss_equals_its_formula():
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(1, 5, 10, 14, generator=generator)
    output[:, 1:] = output[:, 1:].abs() + 0.5
    heat, sides, weight = targets(torch.tensor([[4.0, 6.0, 14.0, 12.0]]), 10, 14)
    p = output[0, 0].sigmoid().double()
    focal = 0.0
    for probability, wanted in zip(p.flatten(), heat.double().flatten(), strict=True):
        if wanted > 0.999:
            focal -= float((1 - probability) ** 2 * probability.log())
        else:
            focal -= float((1 - wanted) ** 4 * probability**2 * (1 - probability).log())
    sign, total = torch.tensor([-1.0, -1, 1, 1]), 0.0
    for y, x in (weight > 0).nonzero().tolist():
        pair = (output[0, 1:, y, x] * sign)[None], (sides[:, y, x] * sign)[None]
        total += float((1 - generalized_box_iou(*pair)) * weight[y, x])
    expected = focal + 2 * total / float(weight.sum())
    got = detection_loss(output, heat[None], sides[None], weight[None])
    assert float(got) == pytest.approx(expected, rel=1e-4)


def test_examples_are_flipped_with_their_boxes():
    one = scene()
    seen = set()
    for seed in range(8):
        inputs, heat, _, _ = example(one, np.random.default_rng(seed))
        assert inputs.shape == (2, 24, 32)
        assert heat.shape == (12, 16)
        places = {tuple(p) for p in (heat == 1).nonzero().tolist()}
        seen.add(frozenset(places))
    boxes = one.boxes()
    row = (boxes[:, 1] + boxes[:, 3]) / 2 / CELL / STRIDE
    column = (boxes[:, 0] + boxes[:, 2]) / 2 / CELL / STRIDE
    plain = {(int(y), int(x)) for y, x in zip(row, column, strict=True)}
    assert frozenset(plain) in seen
    assert len(seen) == 2


def test_it_learns_and_is_repeatable(tmp_path):
    scenes = [scene(i) for i in range(3)]
    states = []
    for _ in range(2):
        model, steps = train_prompts(scenes, tmp_path / 'l.safetensors', batch=1, steps=3)
        assert steps == 3
        states.append(list(model.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    torch.manual_seed(0)
    batch = [t[None] for t in example(scenes[0], np.random.default_rng(0))]
    losses = []

    def loss_of(*args):
        loss = detection_loss(*args)
        losses.append(float(loss.detach()))
        return loss

    fit(LightDetector(8), lambda: tuple(batch), loss_of, 0, 40, 0.01)
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
