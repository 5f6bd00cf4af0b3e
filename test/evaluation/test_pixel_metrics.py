# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Pixel metrics against scikit-learn, a literal form of the bin rule, and torchmetrics."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest

from ood_evaluation.pixel_metrics import (
    MODES,
    InputError,
    PixelMetrics,
    bin_floor,
    float_bin,
)

sklearn_metrics = pytest.importorskip('sklearn.metrics')


def frames(kind: str, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(5):
        label = (rng.random((41, 63)) < 0.06).astype(np.uint8)
        label[rng.random(label.shape) < 0.1] = 255
        score = (rng.normal(size=label.shape) * 4 + 6 * (label == 1)).astype(np.float32)
        if kind == 'ties':
            score = np.round(score)
        if kind == 'one class':
            label[label == number % 2] = 255
        if kind == 'void and empty' and number < 3:
            label[:] = 255
            if number == 0:
                score, label = score[:0], label[:0]
        if kind == 'constant':
            score[:] = 0.25
        made.append((score, label))
    return made


KINDS = ('continuous', 'ties', 'one class', 'void and empty', 'constant')


def pooled(made: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    score = np.concatenate([s[y < 255] for s, y in made])
    return np.concatenate([y[y < 255] for _, y in made]), score


def measured(mode: str, made: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    metrics = PixelMetrics(mode)
    for score, label in made:
        metrics.update(score, label)
    return metrics.compute()


@pytest.mark.parametrize('kind', KINDS)
def test_exact_equals_scikit_learn(kind: str) -> None:
    made = frames(kind)
    label, score = pooled(made)
    found = measured('exact', made)
    fpr, tpr, _ = sklearn_metrics.roc_curve(label, score, drop_intermediate=False)
    precision, recall, _thresholds = sklearn_metrics.precision_recall_curve(label, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert found['ap'] == pytest.approx(
        sklearn_metrics.average_precision_score(label, score), abs=1e-12
    )
    assert found['auroc'] == pytest.approx(sklearn_metrics.roc_auc_score(label, score), abs=1e-12)
    assert found['fpr95'] == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)
    assert found['best_f1'] == pytest.approx(f1.max(), abs=1e-12)
    reached = 2 * np.sum((score >= found['best_f1_threshold']) & (label == 1))
    reached /= np.sum(score >= found['best_f1_threshold']) + np.sum(label == 1)
    assert reached == pytest.approx(f1.max(), abs=1e-12)


@pytest.mark.parametrize('value', [0, 1])
def test_one_class_alone(value: int) -> None:
    score = np.arange(6.0).reshape(2, 3)
    found = measured('exact', [(score, np.full((2, 3), value, np.uint8))])
    assert found['ap'] == float(value)
    assert np.isnan(found['auroc'])
    assert np.isnan(found['fpr95'])


def test_nothing_at_all() -> None:
    for mode in MODES:
        found = measured(mode, [(np.zeros((2, 2)), np.full((2, 2), 255, np.uint8))])
        assert np.isnan(found['ap'])
        assert found['void_frames'] == 1
        assert np.isnan(PixelMetrics(mode).compute()['ap'])


def literal_smiyc(made: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float, float]:
    """Bin rule with plain loops: counts at score >= every frame's own edges, added up."""
    table: dict[float, list[int]] = {}
    for frame_score, frame_label in made:
        score, label = frame_score[frame_label < 255], frame_label[frame_label < 255]
        if not score.size:
            continue
        eps = max(0.01 * (float(score.max()) - float(score.min())), 0.01)
        edges = [float(score.min()) - eps, float(score.max()) + eps]
        for value in (0, 1):
            pixels = int((label == value).sum())
            if pixels:
                at = np.linspace(0, 1, min(768 // 2, pixels))
                edges += np.quantile(score[label == value], at).tolist()
        edges = sorted(set(edges))
        # A quantile can lie between two float32; comparing in float32 would round it.
        score = score.astype(np.float64)
        for low, high in pairwise(edges):
            inside = (score >= low) & (score < high)
            row = table.setdefault(low, [0, 0])
            row[0] += int((inside & (label == 1)).sum())
            row[1] += int((inside & (label == 0)).sum())
    positives = sum(row[0] for row in table.values())
    negatives = sum(row[1] for row in table.values())
    tp = fp = 0
    ap, recall, fpr95, best = 0.0, 0.0, 1.0, (-1.0, 0.0)
    for threshold in sorted(table, reverse=True):
        tp += table[threshold][0]
        fp += table[threshold][1]
        if tp + fp:
            ap += (tp / positives - recall) * tp / (tp + fp)
        recall = tp / positives
        if recall >= 0.95 and fpr95 == 1.0:
            fpr95 = fp / negatives
        best = max(best, (2 * tp / (tp + fp + positives), threshold))
    return ap, fpr95, best[1]


@pytest.mark.parametrize('kind', KINDS)
def test_smiyc_equals_the_rule(kind: str) -> None:
    made = frames(kind)
    found = measured('smiyc', made)
    ap, fpr95, threshold = literal_smiyc(made)
    assert found['ap'] == pytest.approx(ap, abs=1e-9)
    assert found['fpr95'] == pytest.approx(fpr95, abs=1e-9)
    assert found['best_f1_threshold'] == pytest.approx(threshold, abs=1e-9)


def test_smiyc_by_hand() -> None:
    score, label = np.array([[3.0, 2.0, 1.0, 0.0]]), np.array([[1, 0, 1, 0]], np.uint8)
    # Quantiles of (1, 3) and (0, 2) hold 0, 1, 2, 3: every pixel has an edge of its own below it.
    found = measured('smiyc', [(score, label)])
    assert found['ap'] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-12)
    assert found['fpr95'] == 0.5


def test_uem_equals_torchmetrics() -> None:
    torchmetrics = pytest.importorskip('torchmetrics.functional.classification')
    import torch

    made = [(score * 5, label) for score, label in frames('continuous')]
    found = measured('uem', made)
    score = torch.from_numpy(np.concatenate([s.ravel() for s, _ in made]))
    label = torch.from_numpy(np.concatenate([y.ravel() for _, y in made]).astype(np.int64))
    ap = torchmetrics.binary_average_precision(score, label, ignore_index=255)
    auroc = torchmetrics.binary_auroc(score, label, ignore_index=255)
    assert found['ap'] == pytest.approx(float(ap), abs=2e-6)
    assert found['auroc'] == pytest.approx(float(auroc), abs=2e-6)
    # Scores that tie at 1.0 make it another number than the exact one.
    assert abs(found['ap'] - measured('exact', made)['ap']) > 1e-3


@pytest.mark.parametrize('kind', KINDS)
def test_streaming_is_within_its_bounds(kind: str) -> None:
    made = frames(kind, 3)
    exact, found = measured('exact', made), measured('streaming', made)
    assert found['ap_low'] - 1e-9 <= exact['ap'] <= found['ap_high'] + 1e-9
    assert found['fpr95_low'] <= exact['fpr95'] <= found['fpr95_high']
    if kind == 'continuous':
        assert found['ap_high'] - found['ap_low'] < 1e-2
        assert found['ap'] == pytest.approx(exact['ap'], abs=1e-3)
    if kind in ('ties', 'constant'):
        # What has a bin of its own is exact.
        assert found['ap'] == pytest.approx(exact['ap'], abs=1e-12)
        assert found['fpr95'] == pytest.approx(exact['fpr95'], abs=1e-12)


@pytest.mark.parametrize('mode', MODES)
def test_merging_in_any_order_is_one_pass(mode: str) -> None:
    made = frames('ties')
    whole = measured(mode, made)
    shards = []
    for part in (made[3:], made[:1], made[1:3]):
        shard = PixelMetrics(mode)
        for score, label in part:
            shard.update(score, label)
        shards.append(pickle.loads(pickle.dumps(shard)))
    assert shards[0].merge(shards[1]).merge(shards[2]).compute() == whole


def test_float_bins_keep_the_order_of_all_floats() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1 << 32, 20000, np.uint64).astype(np.uint32).view(np.float32)
    values = np.sort(values[np.isfinite(values)])
    bins = float_bin(values)
    assert (np.diff(bins.astype(np.int64)) >= 0).all()
    assert (bin_floor(bins) <= values).all()
    zeros = float_bin(np.array([0.0, -0.0], np.float32))
    assert zeros[0] == zeros[1]


def test_nan_is_left_out_and_infinity_is_high() -> None:
    score = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    for mode in MODES:
        found = measured(mode, [(score, np.array([[1, 1, 0, 0]], np.uint8))])
        assert found['nan_pixels'] == 1
        assert found['ap'] == 1.0
        assert found['fpr95'] == 0.0


@pytest.mark.parametrize(
    ('score', 'label', 'named'),
    [
        (np.zeros((2, 3)), np.zeros((3, 2), np.uint8), r'\(2, 3\) and \(3, 2\)'),
        (np.zeros((2, 2)), np.array([[0, 7], [2, 1]], np.uint8), r'\[2, 7\]'),
        (np.zeros((2, 2), complex), np.zeros((2, 2), np.uint8), 'complex'),
    ],
)
def test_bad_input_is_named_and_adds_nothing(
    score: np.ndarray, label: np.ndarray, named: str
) -> None:
    for mode in MODES:
        metrics = PixelMetrics(mode)
        with pytest.raises(InputError, match=named):
            metrics.update(score, label)
        assert metrics.frames == 0


def test_unknown_mode_and_mixed_merge() -> None:
    with pytest.raises(ValueError, match="'average'"):
        PixelMetrics('average')
    with pytest.raises(ValueError, match='smiyc'):
        PixelMetrics('exact').merge(PixelMetrics('smiyc'))
