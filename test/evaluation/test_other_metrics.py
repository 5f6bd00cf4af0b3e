# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""S2M's, instance, time and calibration metrics against literal forms and by hand."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.s2m_metrics import S2MMetrics
from ood_evaluation.calibration_metrics import CalibrationMetrics
from ood_evaluation.instance_metrics import InstanceMetrics
from ood_evaluation.pixel_metrics import InputError
from ood_evaluation.time_metrics import TimeMetrics


def s2m_frames(dtype):
    rng = np.random.default_rng(5)
    made = []
    for number in range(6):
        label = (rng.random((31, 17)) < 0.2).astype(np.uint8)
        label[rng.random(label.shape) < 0.1] = 255
        score = rng.choice([0, 0, 0.07, 0.29, 0.57, 0.58, 0.9, 1.0], label.shape).astype(dtype)
        if number == 0:
            label[label == 1] = 0
        if number == 1:
            label[label == 1], score = 0, np.zeros_like(score)
        made.append((score, label))
    return made


def literal_s2m(made, corrected):
    thresholds = np.arange(0, 1.01, 0.01)
    mean_iou, mean_f1 = [], []
    for t in thresholds:
        ious, f1s = [], []
        for score, label in made:
            p, y = score > t, label == 1
            if corrected:
                p, y = p[label != 255], y[label != 255]
            i, u = (p & y).sum(), (p | y).sum()
            ious.append(i / u if u else float(corrected))
            f1s.append(2 * i / (i + u) if u else float(corrected))
        mean_iou.append(np.mean(ious))
        mean_f1.append(np.mean(f1s))
    iou = mean_iou[0] if corrected else max(mean_iou)
    area = sum(0.005 * (a + b) for a, b in pairwise(mean_iou))
    return area, iou, np.mean(mean_f1)


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_s2m_equals_the_literal_form(dtype):
    made = s2m_frames(dtype)
    metrics = S2MMetrics()
    for score, label in made:
        metrics.update(score, label)
    found = metrics.compute()
    for suffix, corrected in (('', False), ('_corrected', True)):
        names = [f'{name}{suffix}' for name in ('auiou', 'iou', 'mean_f1')]
        expected = literal_s2m(made, corrected)
        np.testing.assert_allclose([found[name] for name in names], expected, atol=1e-12)
    parts = [S2MMetrics(), S2MMetrics()]
    for number, (score, label) in enumerate(reversed(made)):
        parts[number % 2].update(score, label)
    assert pickle.loads(pickle.dumps(parts[1])).merge(parts[0]).compute() == found


def objects(*boxes, shape=(64, 64)):
    ids = np.zeros(shape, np.uint16)
    for identity, (x, y, w, h) in enumerate(boxes, 1):
        ids[y : y + h, x : x + w] = identity
    return ids


def test_instances_by_hand():
    truth = objects((0, 0, 40, 40), (50, 0, 10, 10), (50, 50, 10, 10))
    found = objects((0, 0, 40, 20), (50, 0, 10, 9), (20, 50, 10, 10))
    metrics = InstanceMetrics()
    metrics.update(found, truth, confidences={1: 0.9, 2: 0.5, 3: 0.7})
    figures = metrics.compute()
    assert figures['f1'] == pytest.approx(4 / 6)
    assert figures['mean_iou'] == pytest.approx((0.5 + 0.9) / 2)
    assert figures['recall_small'] == 0.5
    assert figures['recall_large'] == 1.0
    # In order of confidence: hit, miss, hit.
    assert figures['ap50'] == pytest.approx((1 / 3) * 1 + (1 / 3) * (2 / 3))
    # At 0.55 to 0.9 only the second prediction, which comes third, is a hit.
    expected = [figures['ap50'], *[(1 / 3) * (1 / 3)] * 8, 0.0]
    assert figures['ap'] == pytest.approx(np.mean(expected))


def test_predictions_on_ignored_pixels_count_neither_way():
    truth = objects((0, 0, 20, 20))
    ignore = np.zeros(truth.shape, np.uint8)
    ignore[:, 40:] = 255
    found = objects((0, 0, 20, 20), (35, 0, 20, 20), (30, 40, 14, 10))
    metrics = InstanceMetrics()
    metrics.update(found, truth, ignore)
    figures = metrics.compute()
    # The second lies mostly on ignored pixels, the third mostly beside them.
    assert figures['predictions'] == 2
    assert figures['precision'] == 0.5
    with pytest.raises(InputError, match='sizes differ'):
        metrics.update(found[:5], truth)


def test_instance_merge():
    a, b, both = InstanceMetrics(), InstanceMetrics(), InstanceMetrics()
    for metrics, x in ((a, 3), (b, 9)):
        pair = objects((x, 0, 40, 40)), objects((0, 0, 40, 40), (50, 50, 5, 5))
        metrics.update(*pair)
        both.update(*pair)
    assert b.merge(a).compute() == both.compute()


def test_time_by_hand():
    metrics = TimeMetrics()
    blank, half = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    half[:2] = 200
    step = 10**8
    metrics.update(0, blank, [7])
    metrics.update(step, half, [7, 8])
    metrics.update(2 * step, half, [7, 8], [(1, 7)])
    metrics.update(3 * step, blank, [7, 8], [(4, 7)])
    figures = metrics.compute()
    assert figures['flicker'] == pytest.approx(16 / 48)
    assert figures['track_switches'] == 1
    assert figures['delay_frames'] == 2
    assert figures['delay_s'] == pytest.approx(0.2)
    assert figures['never_found'] == 1
    other = TimeMetrics()
    other.update(0, blank, [1], [(1, 1)], stream='rear')
    merged = other.merge(metrics).compute()
    assert merged['delay_frames'] == 1
    assert merged['objects'] == 3
    with pytest.raises(ValueError, match='stream'):
        metrics.merge(metrics)


def test_calibration_against_a_literal_form():
    rng = np.random.default_rng(0)
    probability = rng.integers(0, 256, (90, 80)).astype(np.uint8)
    label = (rng.random(probability.shape) < (probability / 255) ** 2).astype(np.uint8)
    label[:5] = 255
    metrics = CalibrationMetrics()
    metrics.update(probability, label)
    p, y = probability[label < 255] / 255, label[label < 255]
    number = np.minimum((probability[label < 255].astype(int) * 15) // 255, 14)
    ece = sum(
        abs(p[number == b].mean() - y[number == b].mean()) * (number == b).mean()
        for b in range(15)
    )
    figures = metrics.compute()
    assert figures['ece'] == pytest.approx(ece, abs=1e-12)
    assert figures['brier'] == pytest.approx(((p - y) ** 2).mean(), abs=1e-12)
    floats = CalibrationMetrics()
    floats.update(probability / np.float32(255), label)
    assert floats.compute() == figures
    with pytest.raises(InputError, match=r'0\.\.1'):
        floats.update(np.full((2, 2), 1.5), np.zeros((2, 2), np.uint8))
