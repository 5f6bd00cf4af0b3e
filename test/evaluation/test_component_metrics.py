# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Component metrics against a literal form that scans the image once per component."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.ndimage import label as connected

from ood_evaluation.component_metrics import (
    TAUS,
    TRACKS,
    ComponentMetrics,
    Track,
    component_figures,
)
from ood_evaluation.pixel_metrics import InputError, PixelMetrics


def literal(prediction, label, least_prediction, least_truth):
    """One scan of the image for every component."""
    label, cleared = label.copy(), prediction & (label != 255)
    truth, n_truth = connected(label == 1, np.ones((3, 3)))
    found, n_found = connected(cleared, np.ones((3, 3)))
    raw = found.copy()
    for c in range(n_found + 1):
        if (raw == c).sum() < least_prediction:
            found[raw == c] = 0
    for c in range(n_truth + 1):
        if (truth == c).sum() < least_truth:
            label[truth == c] = 255
    truth, found = truth[label < 255], found[label < 255]
    siou = []
    for k in np.unique(truth[truth > 0]):
        mine = truth == k
        touching = np.isin(found, np.unique(found[mine & (found > 0)]))
        both = (mine & (found > 0)).sum()
        elsewhere = (touching & (truth > 0) & ~mine).sum()
        siou.append(both / (touching.sum() + mine.sum() - both - elsewhere))
    ppv = [(truth[found == c] > 0).mean() for c in np.unique(found[found > 0])]
    return siou, ppv


def scene(seed, shape=(48, 57)):
    rng = np.random.default_rng(seed)

    def field():
        return gaussian_filter(rng.normal(size=shape), rng.uniform(0.5, 3))

    values = field()
    label = (values > values.std() * rng.uniform(-0.3, 1)).astype(np.uint8)
    label[field() > 0.2] = 255
    return (values + 0.5 * field()).astype(np.float32), label


@pytest.mark.parametrize('seed', range(12))
def test_equals_one_scan_per_component(seed):
    score, label = scene(seed)
    track = Track(seed % 20 + 1, seed % 7 + 1)
    slow = literal(score > 0.1, label, track.smallest_prediction, track.smallest_truth)
    fast = component_figures(score > 0.1, label, track)
    for a, b in zip(slow, fast, strict=True):
        np.testing.assert_array_equal(np.sort(a), np.sort(b))


def test_a_frame_without_pixels_has_no_components():
    empty = np.zeros((0, 101))
    assert component_figures(empty > 0, empty.astype(np.uint8), Track(2, 2)) == ([], [])


def test_sizes_are_strict():
    for track in TRACKS.values():
        label = np.zeros((60, 60), np.uint8)
        label.ravel()[: track.smallest_truth] = 1
        siou, _ = component_figures(np.zeros(label.shape, bool), label, track)
        assert siou == [0.0]
        label.ravel()[0] = 0
        assert component_figures(np.zeros(label.shape, bool), label, track)[0] == []
        prediction = np.zeros(label.shape, bool)
        prediction.ravel()[: track.smallest_prediction] = True
        _, ppv = component_figures(prediction, np.zeros_like(label), track)
        assert ppv == [0.0]
        prediction.ravel()[0] = False
        assert component_figures(prediction, np.zeros_like(label), track)[1] == []


def test_few_other_pixels_are_ignored_too():
    label = np.ones((20, 20), np.uint8)
    label[0, :9] = 0
    siou, ppv = component_figures(np.ones(label.shape, bool), label, TRACKS['obstacle'])
    assert (siou, ppv) == ([1.0], [1.0])


def test_waits_for_the_best_f1_threshold():
    made = [scene(seed, (80, 90)) for seed in range(4)]
    pixels, waiting = PixelMetrics('smiyc'), ComponentMetrics('obstacle')
    for score, label in made:
        pixels.update(score, label)
        waiting.update(score, label)
    threshold = pixels.compute()['best_f1_threshold']
    told, masks = ComponentMetrics('obstacle', threshold), ComponentMetrics('obstacle')
    siou, ppv = [], []
    for score, label in made:
        told.update(score, label)
        masks.update(score > threshold, label)
        a, b = literal(score > threshold, label, 50, 10)
        siou += a
        ppv += b
    figures = waiting.compute()
    assert figures['threshold'] == threshold
    assert figures['sIoU'] == pytest.approx(np.mean(siou), abs=1e-12)
    assert figures['PPV'] == pytest.approx(np.mean(ppv), abs=1e-12)
    f1 = []
    for tau in np.linspace(0.25, 0.75, 11, endpoint=True):
        tp, fn = sum(s >= tau for s in siou), sum(s < tau for s in siou)
        f1.append(2 * tp / (2 * tp + fn + sum(p < tau for p in ppv)))
    assert figures['F1_star'] == pytest.approx(np.mean(f1), abs=1e-12)
    for other in (told, masks):
        for name in ('sIoU', 'PPV', 'F1_star', 'tp', 'fn', 'fp'):
            assert other.compute()[name] == figures[name]


def test_merging_in_any_order_is_one_pass():
    made = [scene(seed) for seed in range(6)]
    whole = ComponentMetrics('obstacle')
    for score, label in made:
        whole.update(score, label)
    parts = []
    for chosen in (made[4:], made[:3], made[3:4]):
        part = ComponentMetrics('obstacle')
        for score, label in chosen:
            part.update(score, label)
        parts.append(pickle.loads(pickle.dumps(part)))
    assert parts[0].merge(parts[1]).merge(parts[2]).compute() == whole.compute()


def test_nothing_predicted_and_nothing_there():
    label = np.zeros((40, 40), np.uint8)
    label[:20] = 1
    metrics = ComponentMetrics('anomaly', threshold=1.0)
    metrics.update(np.zeros(label.shape), label)
    figures = metrics.compute()
    assert (figures['sIoU'], figures['PPV'], figures['F1_star']) == (0.0, 0.0, 0.0)
    empty = ComponentMetrics('anomaly').compute()
    assert np.isnan(empty['sIoU'])
    assert np.isnan(empty['F1_star'])
    assert len(TAUS) == len(figures['f1'])


def test_bad_input():
    with pytest.raises(ValueError, match="'street'"):
        ComponentMetrics('street')
    for score in (np.zeros((2, 3)), np.zeros((2, 3), bool)):
        for threshold in (None, 0.5):
            metrics = ComponentMetrics('anomaly', threshold)
            with pytest.raises(InputError, match='sizes differ'):
                metrics.update(score, np.zeros((3, 2), np.uint8))
            assert metrics.frames == 0
    with pytest.raises(ValueError, match='cannot merge'):
        ComponentMetrics('anomaly').merge(ComponentMetrics('obstacle'))
