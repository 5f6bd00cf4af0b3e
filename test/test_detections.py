# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Node, `ood run` and bags of outputs name what they say of an object alike."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np

from ood_perception.detections import confidence_of, rows
from ood_perception.result import Result
from ood_perception.ros.detections import to_json

RESULT = Result(
    instances=np.array([[0, 7], [7, 300]], np.uint16),
    boxes=np.array([[1.5, 0, 2, 1.25], [1, 1, 2, 2]], np.float32),
    confidences=np.array([0.93217, 0.5], np.float32),
    ids=np.array([7, 300], np.int32),
    areas=np.array([2, 1], np.int32),
    mean_scores=np.array([7.31, -0.25], np.float32),
    surroundings=np.array([1, 3], np.uint8),
)
OBJECTS = [
    {
        'id': 7,
        'class_id': 'unknown',
        'confidence': 0.9322,
        'mean_score': 7.31,
        'box_xyxy': [1.5, 0.0, 2.0, 1.25],
        'area_px': 2,
        'surroundings': 'on_road',
    },
    {
        'id': 300,
        'class_id': 'unknown',
        'confidence': 0.5,
        'mean_score': -0.25,
        'box_xyxy': [1.0, 1.0, 2.0, 2.0],
        'area_px': 1,
        'surroundings': 'in_air',
    },
]


def test_objects_of_a_result() -> None:
    assert json.loads(json.dumps([item.json() for item in rows(RESULT)])) == OBJECTS
    assert rows(Result()) == []


def test_the_node_says_the_same_and_the_old_names_for_one_release() -> None:
    header = SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2), frame_id='camera')
    tree = json.loads(to_json(header, '', (2, 2), rows(RESULT)))
    for row, wanted in zip(tree['detections'], OBJECTS, strict=True):
        old = {'score': wanted['confidence'], 'box': wanted['box_xyxy'], 'area': wanted['area_px']}
        assert row == {**wanted, **old}


def test_old_name_of_the_confidence() -> None:
    assert confidence_of({'confidence': 0.25}) == confidence_of({'score': 0.25}) == 0.25


def test_old_name_of_the_confidences() -> None:
    assert RESULT.box_scores is RESULT.confidences
