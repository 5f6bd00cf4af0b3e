# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood camera`: folder, video and proving ground arrive over DDS as they were sent."""

from __future__ import annotations

import dataclasses
import os
import threading

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ood_perception.bags.sources import SourceError, open_source
from ood_perception.frames.decode import decode
from ood_perception.ros import process, qos
from ood_perception.ros.image_topic import ImageMessage
from ood_perception.ros.tools.camera import run_camera
from ood_simulation import ProvingGround


def pictures(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


@pytest.fixture
def folder(tmp_path):
    for i, image in enumerate(pictures(6)):
        cv2.imwrite(str(tmp_path / f'{i:03d}.png'), image[..., ::-1])
    (tmp_path / '0015.png').write_bytes(b'damaged')
    (tmp_path / 'notes.txt').write_text('no picture')
    return tmp_path


def send_in_thread(source, **options) -> tuple[threading.Thread, list[int]]:
    sent: list[int] = []
    thread = threading.Thread(target=lambda: sent.append(run_camera(source, wait=30, **options)))
    thread.start()
    return thread, sent


def test_folder_raw(folder, ros_node, spin_until):
    got, infos = [], []
    ros_node.create_subscription(Image, '/front/image_raw', got.append, 20)
    ros_node.create_subscription(CameraInfo, '/front/camera_info', infos.append, 20)
    source = dataclasses.replace(open_source(str(folder)), focal=50.0)
    thread, sent = send_in_thread(
        source, namespace='/front', rate=40.0, frames=9, loop=True, frame_id='front'
    )
    assert spin_until(lambda: len(got) == 9 and len(infos) == 9 and not thread.is_alive())
    assert sent == [9]
    expected = pictures(6)
    for i, message in enumerate(got):
        assert np.array_equal(decode(message), expected[i % 6])
        assert message.header.frame_id == 'front'
    stamps = [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in got]
    assert stamps == sorted(set(stamps))
    assert [i.header for i in infos] == [m.header for m in got]
    assert (infos[0].width, infos[0].height, infos[0].k[0], infos[0].k[2]) == (64, 48, 50.0, 32.0)


def test_proving_ground_compressed_only(ros_node, spin_until):
    raw, jpeg = [], []
    ros_node.create_subscription(Image, '/camera/image_raw', raw.append, 20)
    ros_node.create_subscription(CompressedImage, '/camera/image_raw/compressed', jpeg.append, 20)
    source = open_source('proving-ground:5', 96, 64)
    ground = ProvingGround(5, 96, 64)
    assert source.focal == pytest.approx(ground.focal)
    thread, _sent = send_in_thread(source, transport='compressed', frames=4, quality=95)
    assert spin_until(lambda: len(jpeg) == 4 and not thread.is_alive())
    assert not raw
    assert jpeg[0].format == 'rgb8; jpeg compressed bgr8'
    error = decode(jpeg[2]).astype(int) - ground.frame(2).image
    assert np.abs(error).mean() < 8


def test_video(tmp_path, ros_node, spin_until):
    path = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25.0, (64, 48))
    if not writer.isOpened():
        pytest.skip('this OpenCV cannot write MJPG')
    for level in (10, 60, 120, 180, 240):
        writer.write(np.full((48, 64, 3), (0, 0, level), np.uint8))
    writer.release()
    source = open_source(str(path), 32, 24)
    assert (source.rate, source.length) == (25.0, 5)
    got = []
    ros_node.create_subscription(Image, '/camera/image_raw', got.append, 20)
    thread, _sent = send_in_thread(source)
    assert spin_until(lambda: len(got) == 5 and not thread.is_alive())
    for level, message in zip((10, 60, 120, 180, 240), got, strict=True):
        assert (message.height, message.width) == (24, 32)
        assert np.abs(decode(message).mean((0, 1)) - (level, 0, 0)).max() < 6


def test_errors_name_what_is_wrong(tmp_path):
    for text, words in (
        ('nowhere', 'no folder, picture, video or bag'),
        (str(tmp_path), 'no pictures'),
        ('proving-ground:x', "got 'x'"),
        ('97', 'no webcam'),
    ):
        with pytest.raises(SourceError, match=words):
            open_source(text)
    with pytest.raises(SourceError, match='both width and height'):
        open_source('proving-ground', 64)
    (tmp_path / 'a.png').write_bytes(b'damaged')
    with pytest.raises(SourceError, match='can be read'):
        open_source(str(tmp_path))
    (tmp_path / 'film.mp4').write_bytes(b'damaged')
    with pytest.raises(SourceError, match='no picture, video or bag'):
        open_source(str(tmp_path / 'film.mp4'))
    for options in ({'transport': 'smoke'}, {'quality': 0}, {'qos_name': 'x'}, {'rate': -1.0}):
        with pytest.raises(ValueError, match='got'):
            run_camera('proving-ground', **options)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8', 'mono16', '32FC1'])
def test_image_message_is_written_in_place(ros, encoding):
    from rclpy.serialization import deserialize_message, serialize_message

    message = ImageMessage(5, 7, encoding)
    values = np.random.default_rng(0).integers(0, 200, message.pixels.shape)
    pixels = values.astype(message.pixels.dtype)
    sent = message.write(pixels, message.message.header)
    assert sent is message.message
    back = deserialize_message(serialize_message(sent), Image)
    assert bytes(back.data) == pixels.tobytes()
    assert (back.height, back.width, back.encoding) == (5, 7, encoding)
    assert back.step * 5 == len(back.data)
    with pytest.raises(ValueError, match="got 'yuv'"):
        ImageMessage(5, 7, 'yuv')


VARIABLES = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'


def test_transport_profile_respects_the_user(monkeypatch):
    for name in (*VARIABLES, process.STOCK_VARIABLE):
        monkeypatch.setenv(name, '')  # what `process` sets itself is taken back, too
        monkeypatch.delenv(name)
    path = process.apply_transport_profile()
    assert path is not None
    assert path.name == 'fastdds.xml'
    assert process.apply_transport_profile() == path
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(VARIABLES[0], '/my/own.xml')
    assert str(process.apply_transport_profile()) == '/my/own.xml'
    # A process that is told to keep the stock transports tells those that it starts.
    monkeypatch.setenv(process.STOCK_VARIABLE, '0')
    monkeypatch.setenv(VARIABLES[0], '')
    assert process.apply_transport_profile() is None
    assert not any(name in os.environ for name in VARIABLES)
    assert os.environ[process.STOCK_VARIABLE] == '1'
    assert process.apply_transport_profile() is None
    # The name that the other distributions read is understood.
    monkeypatch.setenv(process.STOCK_VARIABLE, '0')
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    monkeypatch.setenv(VARIABLES[0], '/my/own.xml')
    monkeypatch.delenv(VARIABLES[1], raising=False)
    assert str(process.apply_transport_profile()) == '/my/own.xml'
    assert os.environ[VARIABLES[1]] == '/my/own.xml'
    monkeypatch.setenv(VARIABLES[1], '/my/own.xml')


def test_qos_by_name():
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    latest = qos.profile('latest')
    assert (latest.depth, latest.reliability) == (1, ReliabilityPolicy.BEST_EFFORT)
    assert qos.describe(latest) == 'best effort, volatile, depth 1'
    assert qos.profile('latched').durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert qos.profile('reliable', depth=9).depth == 9
    with pytest.raises(ValueError, match="got 'nice'"):
        qos.profile('nice')
    with pytest.raises(ValueError, match='got 0'):
        qos.profile('latest', depth=0)
