# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped weights over DDS: what they find, and faults that are told and get over."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from node_helpers import ROOT, Client, NodeProcess, image, pixels, rows
from sensor_msgs.msg import CameraInfo

from small_models import small_profile

FRAME = 60
OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'
TOPIC = '/camera/image_raw'
PROFILE = ROOT / 'config' / 'profiles' / 'compact.yaml'


@pytest.fixture(scope='module')
def scene():
    """A frame of a road with things on it that do not belong there, and their labels."""
    from ood_simulation import ProvingGround

    return ProvingGround(seed=1007).frame(FRAME)


def largest(anomaly: np.ndarray) -> np.ndarray:
    """Pixels (bool) of the largest of the things."""
    _, parts, areas, _ = cv2.connectedComponentsWithStats((anomaly == 1).astype(np.uint8))
    return parts == 1 + areas[1:, cv2.CC_STAT_AREA].argmax()


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    """A client of one node with the shipped weights whose engine has faults on demand."""
    folder = tmp_path_factory.mktemp('recovery')
    name = f'recovery_{os.getpid()}'
    control = folder / 'control'
    control.write_text('')
    process = NodeProcess.__new__(NodeProcess)
    process.prepare(folder, name, {'image': TOPIC}, profile=str(PROFILE), stale_after=1.0)
    process.command = [
        sys.executable,
        str(ROOT / 'test' / 'faulty_node.py'),
        str(control),
        *process.command[3:],
    ]
    process.start()
    client = Client(rclpy.create_node(f'doctor_{os.getpid()}'), name)
    client.process, client.control, client.stamp = process, control, 1
    client.wait_active(process)
    client.listen('heatmap', 'instances', 'overlay', 'detections_json')
    yield client
    control.write_text('')
    code = process.stop()
    client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


@pytest.fixture(scope='module')
def quick(client):
    """Give the node small images, with which faults come and go as with large ones, but sooner."""
    folder = client.control.parent
    assert client.change('deactivate')
    assert client.change('cleanup')
    assert client.set(profile=small_profile(folder, 'compact'))[0].successful
    assert client.change('configure')
    assert client.change('activate')
    return folder


def feed(client, scene, until, timeout: float = 60.0) -> bool:
    """Send the scene, with rising stamps, until a condition holds."""
    frame = image(np.ascontiguousarray(scene.image))
    frame.header.stamp.sec = client.stamp
    client.newest = frame
    done = client.feed(TOPIC, frame, until, timeout)
    client.stamp = frame.header.stamp.sec + 1
    return done


def level(client, part: str = 'pipeline') -> bytes:
    return client.statuses.get(part, {}).get('level', b'\xff')


def message(client, part: str = 'pipeline') -> str:
    return client.statuses.get(part, {}).get('message', '')


def well(client) -> bool:
    """Whether all is well, but that a busy machine may drop most frames."""
    camera = level(client, 'camera')
    busy = camera == WARN and message(client, 'camera').endswith('engine or device')
    return level(client) == OK and (
        camera == OK or (busy and 'dropped' in message(client, 'camera'))
    )


def fresh(client) -> bool:
    """Whether a heatmap has come since the last call of `forget`."""
    return bool(client.got['heatmap'])


def forget(client) -> None:
    client.spin(timeout=0.3)
    for messages in client.got.values():
        messages.clear()


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


def test_a_fault_that_passes_changes_nothing(quick, client, scene):
    before = client.process.text().count('loading profile')
    client.control.write_text('fail')
    client.spin(timeout=0.2)
    feed(client, scene, lambda: client.count('failed') > 0, 0.6)
    client.control.write_text('')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client), 30)
    assert client.process.text().count('loading profile') == before


def test_a_pipeline_that_fails_and_cannot_be_replaced_is_an_error_until_it_works(
    quick, client, scene
):
    assert feed(client, scene, lambda: well(client))
    client.control.write_text('fail broken')
    assert feed(client, scene, lambda: level(client) == ERROR)
    assert feed(client, scene, lambda: 'could not be loaded' in client.process.text())
    assert 'injected' in message(client)
    assert level(client, 'camera') == ERROR
    tries = client.process.text().count('loading profile')
    assert feed(client, scene, lambda: client.process.text().count('loading profile') > tries)
    client.control.write_text('')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client))


def test_a_pipeline_that_is_lost_is_loaded_anew(quick, client, scene):
    assert feed(client, scene, lambda: well(client))
    before = client.process.text().count('loading profile')

    def died() -> bool:
        if 'this one is dead' in client.process.text():
            return True
        client.control.write_text('dead')  # as of now
        return False

    assert feed(client, scene, died)
    forget(client)
    loaded = lambda: client.process.text().count('loading profile') > before  # noqa: E731
    assert feed(client, scene, lambda: loaded() and fresh(client) and well(client), 90)
    client.control.write_text('')


def test_a_network_that_hangs_is_an_error_until_it_returns(quick, client, scene):
    assert feed(client, scene, lambda: well(client))
    client.control.write_text('hang')
    assert feed(client, scene, lambda: level(client) == ERROR and level(client, 'camera') == ERROR)
    assert 'not come back' in message(client)
    assert 'no result' in message(client, 'camera')
    # services answer meanwhile
    assert not client.trigger('reset').success
    assert client.set(overlay_alpha=0.6)[0].successful
    client.control.write_text('')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client))


def test_a_network_that_never_returns_is_replaced(quick, client, scene):
    client.control.write_text('hang')
    forget(client)
    assert feed(client, scene, lambda: fresh(client) and well(client), 120)
    client.control.write_text('')


def test_two_nodes_of_one_name_are_told(quick, client, scene):
    twin = rclpy.create_node(client.node)
    assert client.spin(lambda: level(client) == WARN and '2 nodes' in message(client), 20)
    assert f'2 nodes are named /{client.node}' in client.process.text()
    twin.destroy_node()
    assert client.spin(lambda: '2 nodes' not in message(client), 20)


def test_silence_names_the_topics_that_exist(quick, client, scene):
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
