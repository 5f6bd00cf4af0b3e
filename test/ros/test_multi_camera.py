# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from node_helpers import Client, NodeProcess, compressed, image, picture, pixels, rows
from node_helpers import write_profile as tiny
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

CAMERAS = ('front', 'left', 'rear')


@pytest.fixture(scope='module')
def client(ros, tmp_path_factory):
    """A client of a node with three cameras, one compressed and one limited in rate; depth."""
    folder = tmp_path_factory.mktemp('cameras')
    name = f'cameras_{os.getpid()}'
    process = NodeProcess(
        folder,
        name,
        profile=str(tiny(folder)),
        cameras=list(CAMERAS),
        depth='image',
        points_threshold=0.0,
        points_stride=3,
        **{'left.image_transport': 'compressed', 'rear.max_rate': 2.0},
    )
    client = Client(rclpy.create_node(f'rig_{os.getpid()}'), name)
    client.process = process
    client.wait_active(process)
    for camera in CAMERAS:
        client.listen('heatmap', 'detections_json', camera=camera)
    yield client
    code = process.stop()
    client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


class Rig:
    """Publishes a frame of every camera per step."""

    def __init__(self, client, sizes):
        self.client, self.stamp = client, 0
        self.frames = {}
        for camera, (height, width) in sizes.items():
            make = compressed if camera == 'left' else image
            self.frames[camera] = make(picture(height, width))
            self.frames[camera].header.frame_id = camera
        self.topics = {c: f'/{c}/image_raw' for c in CAMERAS}
        self.topics['left'] += '/compressed'

    def step(self, *cameras: str) -> None:
        self.stamp += 1
        for camera in cameras or self.frames:
            self.frames[camera].header.stamp.sec = self.stamp
            self.client.publish(self.topics[camera], self.frames[camera])
        self.client.spin(timeout=0.05)

    def until(self, condition, *cameras: str, steps: int = 1200) -> bool:
        for _ in range(steps):
            if condition():
                return True
            self.step(*cameras)
        return condition()


def test_every_camera_has_its_own_topics_sizes_and_books(client):
    sizes = {'front': (64, 96), 'left': (80, 80), 'rear': (96, 64)}
    rig = Rig(client, sizes)
    assert rig.until(lambda: all(len(client.got[f'{c}/heatmap']) >= 5 for c in CAMERAS))
    for camera, size in sizes.items():
        for message in client.got[f'{camera}/heatmap']:
            assert pixels(message).shape == size
            assert message.header.frame_id == camera
    client.spin(timeout=2.0)
    for camera in CAMERAS:
        values = client.values(camera)
        assert values['topic'] == rig.topics[camera]
        books = [int(values[k]) for k in ('processed', 'dropped', 'discarded', 'bad', 'failed')]
        assert 0 <= int(values['received']) - sum(books) <= 1
    # rear is limited to 2 Hz, the others are not
    assert client.count('processed', 'front') > client.count('processed', 'rear')


def test_no_camera_is_starved(client):
    """front floods, left sends now and then: both are served evenly while both have frames."""
    rig = Rig(client, {'front': (64, 96), 'left': (80, 80)})
    rig.stamp = 10_000
    client.spin(timeout=1.5)
    before = {c: client.count('processed', c) for c in ('front', 'left')}
    for _ in range(30):
        for _ in range(3):
            rig.step('front')
        rig.step('front', 'left')
    client.spin(timeout=2.5)
    done = {c: client.count('processed', c) - before[c] for c in before}
    # best effort over a loaded machine may lose a message; starvation would be a handful
    assert done['left'] >= 20, done
    assert done['front'] >= done['left'] * 0.8, done


def test_a_camera_that_stops_changes_size_or_breaks_affects_only_itself(client):
    rig = Rig(client, {'front': (64, 96), 'left': (80, 80)})
    rig.stamp = 20_000
    client.set(stale_after=0.5)
    assert rig.until(
        lambda: (
            'no image' in client.statuses['front']['message']
            and 'no depth has come yet' in client.statuses['left']['message']
        ),
        'left',
    )
    rig.frames['front'] = image(picture(120, 72))
    client.got['front/heatmap'].clear()
    assert rig.until(
        lambda: any(m.height == 120 for m in client.got['front/heatmap']), 'front', 'left'
    )
    rig.frames['front'].encoding = 'no such'
    left = len(client.got['left/heatmap'])
    assert rig.until(lambda: len(client.got['left/heatmap']) > left + 5, 'front', 'left')
    assert rig.until(lambda: client.statuses['front']['level'] == b'\x02', 'front', 'left')
    assert client.statuses['left']['level'] == b'\x01'
    client.set(stale_after=2.0)


def test_points_and_places_from_registered_depth(client):
    import numpy as np

    from ood_perception.frames.depth import POINT

    clouds: list[PointCloud2] = []
    client.ros.create_subscription(PointCloud2, f'/{client.node}/front/points', clouds.append, 10)
    metres = np.full((64, 96), 5.0, np.float32)
    metres[:, :48] = np.nan
    depth = image(metres, '32FC1')
    info = CameraInfo(height=64, width=96)
    info.k = [80.0, 0, 47.5, 0, 80.0, 31.5, 0, 0, 1.0]
    frame = image(picture(64, 96), frame='front_optical_frame')
    client.got['front/detections_json'].clear()
    for second in range(30_000, 30_400):
        for message in (depth, frame):
            message.header.stamp.sec = second
        client.publish('/front/camera_info', info)
        client.publish('/front/depth/image_raw', depth)
        client.publish('/front/image_raw', frame)
        client.spin(timeout=0.05)
        placed = [r for m in client.got['front/detections_json'] for r in rows(m)]
        if clouds and (not placed or any('position' in r for r in placed)) and second > 30_020:
            break
    assert clouds
    cloud = clouds[-1]
    assert cloud.header.frame_id == 'front_optical_frame'
    assert cloud.header.stamp.sec >= 30_000
    points = np.frombuffer(cloud.data, POINT)
    assert len(points) == cloud.width > 0
    assert (points['z'] == 5).all()
    assert points['x'].min() > -0.1
    assert ((points['score'] >= 0) & (points['score'] <= 1)).all()
    for row in placed:
        if 'position' in row:
            assert row['position'][2] == 5.0
            assert row['distance'] >= 5.0


def test_depth_of_another_size_is_reported_and_costs_only_the_points(client):
    import numpy as np

    depth = image(np.ones((10, 10), np.float32), '32FC1')
    frame = image(picture(64, 96))
    heatmaps = client.got['front/heatmap']
    heatmaps.clear()
    for second in range(40_000, 40_600):
        for message in (depth, frame):
            message.header.stamp.sec = second
        client.publish('/front/depth/image_raw', depth)
        client.publish('/front/image_raw', frame)
        client.spin(timeout=0.05)
        if heatmaps and 'is not registered' in client.process.text():
            break
    assert heatmaps
    assert 'depth of 10x10 is not registered to the image of 96x64' in client.process.text()


def test_depth_that_comes_after_its_image_is_used_and_holds_up_no_map(client):
    """The image is sent first, the depth when the heatmap is there already."""
    import numpy as np

    from ood_perception.frames.depth import POINT

    clouds: list[PointCloud2] = []
    topic = f'/{client.node}/front/points'
    subscription = client.ros.create_subscription(PointCloud2, topic, clouds.append, 10)
    # Longer than it takes a loaded machine to answer.
    client.set(depth_slop=5.0)
    depth = image(np.full((64, 96), 3.0, np.float32), '32FC1')
    frame = image(picture(64, 96), frame='front_optical_frame')
    info = CameraInfo(height=64, width=96, k=[80.0, 0, 47.5, 0, 80.0, 31.5, 0, 0, 1.0])
    heatmaps, rows_of = client.got['front/heatmap'], client.got['front/detections_json']
    together = 0
    for second in range(50_000, 50_400, 10):
        for message in (frame, depth):
            message.header.stamp.sec = second
        heatmaps.clear(), rows_of.clear(), clouds.clear()
        client.publish('/front/camera_info', info)
        client.publish('/front/image_raw', frame)
        # A message may be lost before its two ends know each other; then the next one is tried.
        # Answers of a frame before this one may come late.
        own = frame.header
        if not client.spin(lambda own=own: any(m.header == own for m in heatmaps), 2.0):
            continue
        mine = [c for c in clouds if c.header == own]
        assert not mine
        assert not [r for r in rows_of if f'"sec": {second}' in r.data]
        client.publish('/front/depth/image_raw', depth)
        if not client.spin(
            lambda own=own, sec=f'"sec": {second}': (
                any(c.header == own for c in clouds) and any(sec in r.data for r in rows_of)
            ),
            2.0,
        ):
            continue
        (cloud,) = [c for c in clouds if c.header == own]
        assert (np.frombuffer(cloud.data, POINT)['z'] == 3).all()
        together += 1
        if together == 3:
            break
    assert together == 3
    # A camera that sends nothing more is not running either.
    for second in range(50_500, 50_540):
        for message in (frame, depth):
            message.header.stamp.sec = second
        client.publish('/front/image_raw', frame)
        client.publish('/front/depth/image_raw', depth)
        if client.spin(lambda: client.statuses['front']['message'] == 'running', 0.5):
            break
    assert client.statuses['front']['message'] == 'running', client.statuses['front']
    without = client.count('frames_without_depth', 'front')
    client.set(depth_slop=0.05)
    alone: list = []
    for second in range(51_000, 51_200, 10):
        frame.header.stamp.sec = second
        client.publish('/front/image_raw', frame)
        # Without its depth a frame goes out all the same, only without metres. Answers of frames
        # that had depth may still come.
        if client.spin(lambda sec=f'"sec": {second}': any(sec in m.data for m in rows_of), 2.0):
            alone = [m for m in rows_of if f'"sec": {second}' in m.data]
            break
    assert alone
    assert all('position' not in row for m in alone for row in rows(m))
    # An earlier frame may be counted too, and be forgotten by one that had depth: the last word of
    # diagnostics is of the last frame.
    told = client.spin(lambda: 'nearest depth' in client.statuses['front']['message'], 10.0)
    assert told, client.statuses['front']
    assert client.count('frames_without_depth', 'front') > without
    assert client.statuses['front']['level'] == b'\x01'
    client.set(depth_slop=0.1)
    client.ros.destroy_subscription(subscription)


def test_a_camera_info_of_another_size_is_a_warning_until_it_fits(client):
    frame = image(picture(64, 96), frame='front')
    heatmaps = client.got['front/heatmap']

    def told(level: bytes, words: str, info: CameraInfo) -> bool:
        for second in range(200):
            frame.header.stamp.sec = 60_000 + second
            client.publish('/front/camera_info', info)
            client.publish('/front/image_raw', frame)
            client.spin(timeout=0.1)
            status = client.statuses['front']
            if status['level'] == level and words in status['message']:
                return True
        return False

    k = [80.0, 0, 47.5, 0, 80.0, 31.5, 0, 0, 1.0]
    said = 'camera_info says 640x480; the image has 96x64'
    assert told(b'\x01', said, CameraInfo(height=480, width=640, k=k))
    assert client.process.text().count(said) <= 2  # once when it begins, once when it is over
    fits = CameraInfo(height=64, width=96, k=k)
    for _ in range(100):
        client.publish('/front/camera_info', fits)
        client.publish('/front/image_raw', frame)
        client.spin(timeout=0.1)
        if said not in client.statuses['front']['message']:
            break
    assert said not in client.statuses['front']['message']
    assert f'over: {said}' in client.process.text()
    heatmaps.clear()


def test_two_publishers_of_a_camera_are_named_and_do_not_reset_it_for_ever(client):
    second = rclpy.create_node(f'second_{os.getpid()}')
    other = second.create_publisher(Image, '/front/image_raw', 10)
    frame = image(picture(64, 96), frame='front')
    before = client.count('stamp_jumps', 'front')

    def told() -> bool:
        message = client.statuses['front']['message']
        return '2 publishers' in message and f'/second_{os.getpid()}' in message

    for i in range(300):
        frame.header.stamp.sec = 80_000 + i
        client.publish('/front/image_raw', frame)
        client.spin(timeout=0.05)
        frame.header.stamp.sec = 70_000 + i  # by another clock
        other.publish(frame)
        client.spin(timeout=0.05)
        if told() and i > 30:
            break
    assert told()
    assert client.spin(lambda: client.count('stamp_jitters', 'front') > 3, 10.0)
    assert client.count('stamp_jumps', 'front') - before <= 1
    second.destroy_node()
    assert client.spin(lambda: '2 publishers' not in client.statuses['front']['message'], 20.0)


def test_publishers_of_other_types_do_not_disturb(client):
    client.publish('/left/image_raw', Image())
    client.publish('/front/image_raw/compressed', CompressedImage())
    rig = Rig(client, {'front': (64, 96), 'left': (80, 80)})
    rig.stamp = 50_000
    for camera in ('front', 'left'):
        client.got[f'{camera}/heatmap'].clear()
    assert rig.until(lambda: all(client.got[f'{c}/heatmap'] for c in ('front', 'left')))
