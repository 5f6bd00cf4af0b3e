# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os

import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from sensor_msgs.msg import CompressedImage, Image

from ood_perception.ros.camera_stream import CameraStream, Mailbox
from ood_perception.ros.settings import CameraSettings, Settings
from ood_perception.ros.subscriptions import CameraSubscriptions, type_name


@pytest.mark.parametrize(
    ('remaps', 'transport', 'topic', 'kind', 'info'),
    [
        ({}, 'raw', '/image', Image, '/camera_info'),
        ({}, 'compressed', '/image/compressed', CompressedImage, '/camera_info'),
        ({'image': '/cam/image_raw'}, 'raw', '/cam/image_raw', Image, '/cam/camera_info'),
        (
            {'image': '/cam/image_raw'},
            'compressed',
            '/cam/image_raw/compressed',
            CompressedImage,
            '/cam/camera_info',
        ),
        (
            {'image': '/cam/image_raw/compressed'},
            'compressed',
            '/cam/image_raw/compressed',
            CompressedImage,
            '/cam/camera_info',
        ),
        (
            {'image': '/cam/image_raw/compressed'},
            'raw',
            '/cam/image_raw/compressed',
            CompressedImage,
            '/cam/camera_info',
        ),
        ({'image/compressed': '/jpeg'}, 'compressed', '/jpeg', CompressedImage, '/camera_info'),
        (
            {'image': '/a/b', 'camera_info': '/calibration'},
            'raw',
            '/a/b',
            Image,
            '/calibration',
        ),
    ],
)
def test_topics_of_a_camera(ros, remaps, transport, topic, kind, info):
    arguments = ['--ros-args']
    for source, target in remaps.items():
        arguments += ['-r', f'{source}:={target}']
    node = rclpy.create_node(f'topics_{os.getpid()}', cli_args=arguments)
    try:
        stream = CameraStream('')
        camera = CameraSettings(transport, 'latest', 0.0)
        subscriptions = CameraSubscriptions(node, stream, Mailbox([stream]), Settings(), camera)
        assert subscriptions.topic == topic
        found = {s.topic_name: type_name(s.msg_type) for s in node.subscriptions}
        assert found[topic] == type_name(kind)
        assert found[info] == 'sensor_msgs/msg/CameraInfo'
        assert stream.subscribed_at > 0
        subscriptions.destroy()
    finally:
        node.destroy_node()


def test_a_named_camera_whose_topic_is_compressed(ros):
    arguments = ['--ros-args', '-r', 'front/image_raw:=/f/image/compressed']
    node = rclpy.create_node(f'named_{os.getpid()}', cli_args=arguments)
    try:
        stream = CameraStream('front')
        camera = CameraSettings('raw', 'latest', 0.0)
        subscriptions = CameraSubscriptions(node, stream, Mailbox([stream]), Settings(), camera)
        assert subscriptions.topic == '/f/image/compressed'
        assert '/f/camera_info' in {s.topic_name for s in node.subscriptions}
        subscriptions.destroy()
    finally:
        node.destroy_node()
