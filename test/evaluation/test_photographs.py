# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""The photographs of the demo: all are credited, and the shipped weights see what is on them."""

from __future__ import annotations

import csv

import cv2
import numpy as np

from ood_evaluation.pictures import PHOTOGRAPHS, photograph_panels
from ood_evaluation.pixel_metrics import PixelMetrics
from ood_perception import Pipeline


def test_every_photograph_has_a_label_a_credit_and_a_free_licence():
    with (PHOTOGRAPHS / 'CREDITS.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert {row['file'] for row in rows} == {path.name for path in PHOTOGRAPHS.glob('*.jpg')}
    for row in rows:
        label = cv2.imread(str((PHOTOGRAPHS / row['file']).with_suffix('.png')), 0)
        assert label.shape == cv2.imread(str(PHOTOGRAPHS / row['file'])).shape[:2]
        assert (label == 254).any()
        assert row['credit']
        assert row['licence'].startswith('CC BY ')


def test_the_shipped_weights_see_what_is_unknown_on_them():
    pipeline = Pipeline.from_profile('compact', engine='eager')
    found = photograph_panels(pipeline)
    assert len(found) == 3
    for (caption, picture), path in zip(found, sorted(PHOTOGRAPHS.glob('*.jpg')), strict=True):
        assert 'CC BY' in caption
        assert picture.ndim == 3
        image = cv2.imread(str(path))[..., ::-1]
        (result,) = pipeline(np.ascontiguousarray(image))
        unknown = cv2.imread(str(path.with_suffix('.png')), 0) == 254
        metrics = PixelMetrics()
        metrics.update(result.score, unknown)
        assert metrics.compute()['auroc'] > 0.8, path.name
