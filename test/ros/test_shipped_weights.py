# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped weights over DDS: what they find, and what the node says of its surroundings."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from node_helpers import ROOT, image, pixels, rows
from recovery_helpers import (
    ERROR,
    OK,
    TOPIC,
    WARN,
    faulty_node,
    feed,
    forget,
    fresh,
    level,
    message,
    rendered,
    well,
)
from sensor_msgs.msg import CameraInfo

from small_models import small_profile

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


@pytest.fixture(scope='module')
def quick(client):
    """Give the node small images, for what does not depend on them."""
    folder = client.control.parent
    assert client.change('deactivate')
    assert client.change('cleanup')
    assert client.set(profile=small_profile(folder, 'compact'))[0].successful
    assert client.change('configure')
    assert client.change('activate')
    return folder


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
    assert any(pixels(m).any() for m in client.got['instances'])


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


def test_two_nodes_of_one_name_are_told(quick, client, scene):
    twin = rclpy.create_node(client.node)
    assert client.spin(lambda: level(client) == WARN and '2 nodes' in message(client), 20)
    assert f'2 nodes are named /{client.node}' in client.process.text()
    twin.destroy_node()
    assert client.spin(lambda: '2 nodes' not in message(client), 20)


def test_silence_names_the_topics_that_exist(quick, client, scene):
    assert feed(client, scene, lambda: well(client))
    client.publish('/other/image_raw', image(scene.image[:32, :32].copy()))
    assert client.spin(lambda: f'no image on {TOPIC} for' in message(client, 'camera'), 20)
    assert client.spin(lambda: 'publisher(s) are there but send nothing' in client.process.text())
    client.forget(TOPIC, type(image(scene.image)))
    assert feed(client, scene, lambda: well(client))
    client.forget(TOPIC, type(image(scene.image)))
    assert client.spin(
        lambda: (
            'nobody publishes it; image topics that exist: /other/image_raw (Image)'
            in client.process.text()
        ),
        20,
    )
    assert feed(client, scene, lambda: well(client))


def test_a_memory_that_was_never_taught_says_nothing(quick, client, scene):
    assert client.change('deactivate')
    assert client.change('cleanup')
    missing = quick / 'normal.safetensors'
    novelty = small_profile(quick, 'compact_novelty')
    assert all(r.successful for r in client.set(profile=novelty, memory_file=str(missing)))
    assert client.change('configure')
    assert client.change('activate')
    forget(client)
    processed = client.count('processed')
    assert feed(client, scene, lambda: level(client) == ERROR)
    assert feed(client, scene, lambda: client.count('processed') > processed + 2)
    assert str(missing) in message(client)
    assert 'learn_normal' in message(client)
    assert not any(client.got.values())
    assert client.set_bool('learn_normal', True).success
    count = client.count('processed')
    assert feed(client, scene, lambda: client.count('processed') > count + 6)
    assert not fresh(client)
    assert level(client) == WARN
    answer = client.set_bool('learn_normal', False)
    assert answer.success, answer.message
    assert feed(client, scene, lambda: fresh(client) and well(client))
    assert missing.stat().st_size > 0
    # the memory outlives a pipeline that is given back
    missing.unlink()
    assert client.set(release_on_deactivate=True)[0].successful
    assert client.change('deactivate')
    assert client.change('activate')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client))


def test_a_damaged_memory_file_is_refused_by_name(quick, client):
    assert client.change('deactivate')
    assert client.change('cleanup')
    damaged = quick / 'damaged.safetensors'
    damaged.write_bytes(b'no safetensors' * 9)
    assert client.set(memory_file=str(damaged))[0].successful
    assert not client.change('configure')
    assert client.spin(lambda: level(client) == ERROR, 10)
    assert 'damaged.safetensors' in message(client)
    small = small_profile(quick, 'compact')
    assert client.set(memory_file='', profile=small)[0].successful
    assert client.change('configure')
    assert client.change('activate')
    assert client.spin(lambda: level(client) == OK, 10)


def test_depth_that_does_not_come_is_a_warning_until_it_does(quick, client, scene):
    assert client.change('deactivate')
    assert client.change('cleanup')
    # large enough to find something
    profile = small_profile(quick, 'compact', 288)
    values = {'depth': 'image', 'memory_file': '', 'profile': profile}
    assert all(r.successful for r in client.set(**values))
    assert client.change('configure')
    assert client.change('activate')
    assert feed(client, scene, lambda: 'no depth has come yet' in message(client, 'camera'))
    assert level(client, 'camera') == WARN
    height, width = scene.image.shape[:2]
    metres = image(np.full((height, width), 5.0, np.float32), '32FC1')
    info = CameraInfo(height=height, width=width)
    info.k = [500.0, 0, width / 2, 0, 500.0, height / 2, 0, 0, 1.0]

    def with_depth(condition):
        def check() -> bool:
            metres.header.stamp.sec = client.newest.header.stamp.sec
            client.publish('/camera/camera_info', info)
            client.publish('/depth', metres)
            return condition()

        return check

    forget(client)
    placed = lambda: [  # noqa: E731
        r for m in client.got['detections_json'] for r in rows(m) if 'position' in r
    ]
    assert feed(client, scene, with_depth(lambda: placed() and well(client)))
    assert all(r['position'][2] == pytest.approx(5.0) for r in placed())
    assert feed(client, scene, lambda: 'depth' in message(client, 'camera'))
    assert feed(client, scene, with_depth(lambda: well(client)))
