# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped weights over DDS, at the size of their profile: what they find."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from node_helpers import ROOT, pixels, rows
from recovery_helpers import faulty_node, feed, forget, fresh, rendered, well

PROFILE = ROOT / 'config' / 'profiles' / 'compact.yaml'


@pytest.fixture(scope='module')
def scene():
    return rendered(640, 480)


def largest(anomaly: np.ndarray) -> np.ndarray:
    """Pixels (bool) of the largest of the things."""
    _, parts, areas, _ = cv2.connectedComponentsWithStats((anomaly == 1).astype(np.uint8))
    return parts == 1 + areas[1:, cv2.CC_STAT_AREA].argmax()


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    with faulty_node(tmp_path_factory.mktemp('shipped'), PROFILE) as client:
        yield client


def test_a_strange_thing_on_the_road_is_found(client, scene):
    assert feed(client, scene, lambda: len(client.got['detections_json']) >= 3)
    found = rows(client.got['detections_json'][-1])
    thing = largest(scene.anomaly)
    heat = pixels(client.got['heatmap'][-1])
    assert heat[thing].mean() > 100
    assert heat[scene.anomaly == 0].mean() < 40
    hits = [r for r in found if overlap(r, thing) > 0.3]
    assert hits
    ids = pixels(client.got['instances'][-1])
    assert {r['id'] for r in found} == set(np.unique(ids).tolist()) - {0}
    assert (ids[thing] == hits[0]['id']).mean() > 0.3
    # the overlay: rgb, hot colours on the thing, the picture itself elsewhere
    shown = pixels(client.got['overlay'][-1]).astype(int)
    calm = (heat < 5) & (ids == 0) & (scene.anomaly == 0)
    assert np.abs(shown[calm] - scene.image[calm].astype(int)).mean() < 12
    hot = thing & (heat > 200)
    assert shown[hot][:, 0].mean() > shown[hot][:, 2].mean() + 30


def overlap(row, thing) -> float:
    """Intersection over union of a row's box and the box of the thing's pixels."""
    v, u = np.nonzero(thing)
    want = (u.min(), v.min(), u.max() + 1, v.max() + 1)
    x1, y1, x2, y2 = row['box']
    wide = max(0, min(x2, want[2]) - max(x1, want[0]))
    high = max(0, min(y2, want[3]) - max(y1, want[1]))
    union = (x2 - x1) * (y2 - y1) + (want[2] - want[0]) * (want[3] - want[1]) - wide * high
    return wide * high / union


def test_the_heatmap_is_that_of_the_pipeline_to_the_last_value(client, scene):
    from ood_perception.pipeline import Pipeline

    forget(client)
    assert feed(client, scene, lambda: fresh(client))
    (result,) = Pipeline.from_profile(PROFILE, 'cpu', 'eager')(scene.image, wants={'heatmap'})
    heat = pixels(client.got['heatmap'][-1])
    assert heat.shape == result.heatmap.shape
    # threads sum in another order
    assert np.abs(heat.astype(int) - result.heatmap).max() <= 1


def test_the_threshold_takes_away_what_was_there(client, scene):
    assert feed(client, scene, lambda: any(rows(m) for m in client.got['detections_json']))
    client.set(detection_threshold=1.0, min_area=100_000_000)
    forget(client)
    assert feed(client, scene, lambda: len(client.got['instances']) > 3)
    assert not any(pixels(m).any() for m in client.got['instances'][1:])
    assert not any(rows(m) for m in client.got['detections_json'][1:])
    client.set(detection_threshold=0.5, min_area=0)
    forget(client)
    assert feed(client, scene, lambda: any(rows(m) for m in client.got['detections_json']))
    # the two come by ways of their own
    assert feed(client, scene, lambda: any(pixels(m).any() for m in client.got['instances']))


def test_diagnostics_and_log_name_engine_device_and_licence(client, scene):
    assert feed(client, scene, lambda: well(client))
    values = client.values('pipeline')
    assert values['engine'] == 'eager'
    assert values['device'] == 'cpu'
    assert 'CamVid' in values['licence']
    log = client.process.text()
    assert 'engine eager on cpu' in log
    assert 'CamVid' in log
    assert 'compact: ' in log  # the package's own logging: what was loaded
