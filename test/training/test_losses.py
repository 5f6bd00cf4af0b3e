# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Likelihood-ratio loss against the official numbers, oracles and finite differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F

from ood_perception.labels import Label, truth_of
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.logits import LikelihoodRatio
from ood_training.uem import llr_loss, object_weights
from research.gmm import NO_COMPONENT, contrast_loss
from research.losses import cross_entropy, outlier_loss
from research.segmentor import known_target, segmentation_loss

GOLDEN = Path(__file__).parent.parent / 'golden' / 'llr_loss_small.pt'


@pytest.fixture(scope='module')
def golden():
    return torch.load(GOLDEN, weights_only=False)


def ratio(logits, ood, size):
    return LikelihoodRatio()(SegmentorOutput(logits=logits, ood=ood), size)


@pytest.mark.parametrize('dtype', [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize('wrap', [np.asarray, torch.from_numpy])
def test_labels_become_truth_and_back(wrap, dtype):
    label = wrap(np.array([[0, 18, 253, Label.UNKNOWN, Label.VOID]], dtype))
    truth = truth_of(label)
    assert truth.tolist() == [[0, 0, 0, 1, 255]]
    assert truth.dtype == label.dtype
    assert label.tolist() == [[0, 18, 253, 254, 255]]


def test_unknown_pixels_are_void_for_the_classes():
    label = torch.tensor([[0, 18, 254, 255]], dtype=torch.uint8)
    assert known_target(label).tolist() == [[0, 18, 255, 255]]


def test_llr_equals_the_official_one(golden):
    llr = ratio(golden['sem_seg'], golden['ood_score'], (12, 20))
    torch.testing.assert_close(llr, golden['llr'], rtol=0, atol=1e-5)


def test_llr_takes_the_maximum_after_upsampling():
    logits, ood = torch.randn(1, 5, 3, 4), torch.randn(1, 2, 2, 2)
    size = (9, 11)
    up = F.interpolate(logits, size, mode='bilinear', align_corners=False).max(1).values
    u = F.interpolate(ood, size, mode='bilinear', align_corners=False)
    wanted = u[:, 1] - u[:, 0] - up
    torch.testing.assert_close(ratio(logits, ood, size), wanted)
    small = u[:, 1] - u[:, 0] - F.interpolate(logits.amax(1, keepdim=True), size, mode='bilinear')
    assert (small - wanted).abs().max() > 0.05  # the other order is another number


@pytest.mark.parametrize('case', range(4))
def test_loss_and_gradient_equal_the_official_ones(golden, case):
    wanted = golden['cases'][case]
    ood = golden['ood_score'].clone().requires_grad_()
    llr = ratio(golden['sem_seg'], ood, (12, 20))
    contrast = None
    if wanted['contrast']:
        targets = golden['contrast_targets'].long()
        targets = targets.masked_fill(targets == 255, NO_COMPONENT)
        contrast = (golden['contrast_logits'], targets)
    target = golden['targets']
    loss = llr_loss(llr, target) + wanted['w_gmm'] * outlier_loss(ood, target)
    if contrast is not None:
        loss = loss + contrast_loss(contrast)
    loss.backward()
    assert loss.item() == pytest.approx(wanted['loss'], abs=2e-6)
    torch.testing.assert_close(ood.grad, wanted['grad_ood_score'], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize('weight', [1.0, 3.0])
def test_gradient_by_finite_differences(weight):
    torch.manual_seed(0)
    target = torch.tensor([[[0, 1, 255], [1, 0, 0]]])
    logits = torch.randn(1, 4, 2, 3, dtype=torch.float64)
    ood = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    features = torch.randn(6, 10, dtype=torch.float64, requires_grad=True)
    components = torch.tensor([0, 3, -1, 9, 5, 5])

    def loss(ood, features):
        llr = ood[:, 1] - ood[:, 0] - logits.amax(1)
        loss = llr_loss(llr, target, unknown_weight=weight)
        loss = loss + 0.5 * outlier_loss(ood, target, weight)
        return loss + contrast_loss((features, components))

    assert torch.autograd.gradcheck(loss, (ood, features))


def test_unknown_weight_is_a_weighted_mean():
    llr, target = torch.tensor([[[0.3, -2.0, 9.0]]]), torch.tensor([[[1, 0, 255]]])
    one, zero = F.softplus(torch.tensor(-0.3)), F.softplus(torch.tensor(-2.0))
    wanted = (3 * one + zero) / 4
    assert llr_loss(llr, target, unknown_weight=3.0).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize('share', [0.0, 0.02, 0.2, 0.45, 1.0])
def test_object_weights_follow_the_area_of_each_component(share):
    rng = np.random.default_rng(round(100 * share))
    target = (rng.random((3, 37, 41)) < share).astype(np.int64)
    target[rng.random(target.shape) < 0.1] = 255
    wanted = np.ones(target.shape, np.float32)
    for row, labels in zip(wanted, target, strict=True):
        parts, count = scipy.ndimage.label(labels == 1, np.ones((3, 3)))
        for part in range(1, count + 1):
            row[parts == part] = np.clip(np.sqrt(60 / (parts == part).sum()), 1, 4)
    found = object_weights(torch.from_numpy(target), 60)
    torch.testing.assert_close(found, torch.from_numpy(wanted))
    if share in (0.0, 1.0):
        assert (found == 1).all()


def test_pixel_weights_are_factors_in_a_weighted_mean():
    llr, target = torch.tensor([[[0.3, 1.0, -2.0, 9.0]]]), torch.tensor([[[1, 1, 0, 255]]])
    factors = torch.tensor([[[2.0, 1.0, 1.0, 1.0]]])
    one, two = F.softplus(torch.tensor(-0.3)), F.softplus(torch.tensor(-1.0))
    wanted = (6 * one + 3 * two + F.softplus(torch.tensor(-2.0))) / 10
    loss = llr_loss(llr, target, unknown_weight=3.0, pixel_weight=factors)
    assert loss.item() == pytest.approx(wanted.item())


@pytest.mark.parametrize('value', [0, 1, 255])
def test_one_class_or_nothing_is_finite(value):
    llr = torch.randn(1, 4, 4, requires_grad=True)
    ood = torch.randn(1, 2, 4, 4, requires_grad=True)
    target = torch.full((1, 4, 4), value)
    loss = llr_loss(llr, target) + 0.5 * outlier_loss(ood, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(llr.grad).all()
    if value == 255:
        assert loss.item() == 0
        assert not llr.grad.any()


@pytest.mark.parametrize('weight', [None, torch.tensor([1.0, 2.0, 0.5])])
def test_cross_entropy_equals_torch(weight):
    logits = torch.randn(2, 3, 5, 4)
    target = torch.randint(0, 3, (2, 5, 4))
    target[0, :2] = 255
    wanted = F.cross_entropy(logits, target, weight, ignore_index=255)
    torch.testing.assert_close(cross_entropy(logits, target, weight), wanted)


def test_segmentation_loss_ignores_unknown_and_void():
    logits = torch.randn(1, 3, 2, 2)
    label = torch.tensor([[[0, 254, 255, 2]] * 4])
    up = F.interpolate(logits, (4, 4), mode='bilinear', align_corners=False)
    wanted = F.cross_entropy(up[..., [0, 3]], label[..., [0, 3]])
    torch.testing.assert_close(segmentation_loss(logits, label), wanted)


def test_half_precision_is_computed_in_float32():
    llr = torch.tensor([[[60000.0, -60000.0]]], dtype=torch.float16)
    assert llr_loss(llr, torch.tensor([[[1, 0]]])).item() == 0
    assert llr_loss(llr, torch.tensor([[[0, 1]]])).item() == pytest.approx(6e4, rel=1e-3)
