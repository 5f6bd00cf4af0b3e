# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The topics that a camera is read from, and why nothing arrives when nothing arrives.

A wrong type or QoS that does not fit is silent in DDS: publisher and subscriber never meet. So the
graph is asked once a second, and what does not fit is reported with both sides' settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.qos import QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from ood_perception.frames.geometry import is_rectified
from ood_perception.frames.stamps import DepthPairing
from ood_perception.ros import qos
from ood_perception.ros.camera_stream import CameraStream, Mailbox
from ood_perception.ros.settings import CameraSettings, Settings

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

INFINITE = 2**62  # nanoseconds from which a duration of a QoS profile means 'none'

DEPTH_QUEUE = 5
"""Depth messages that may wait for the executor; a lost one leaves a frame without metres."""

COMPRESSED = '/compressed'

INPUTS = {
    'image': ('image', '{camera}/image_raw', 'sensor_msgs/msg/Image', 'camera image'),
    'image/compressed': (
        'image/compressed',
        '{camera}/image_raw/compressed',
        'sensor_msgs/msg/CompressedImage',
        'the same as JPEG or PNG (parameter image_transport: compressed)',
    ),
    'camera_info': (
        'camera_info',
        '{camera}/camera_info',
        'sensor_msgs/msg/CameraInfo',
        'intrinsics, needed for points from depth images; unless remapped, taken from beside the '
        'image topic',
    ),
    'depth': (
        'depth',
        '{camera}/depth/image_raw',
        'sensor_msgs/msg/Image',
        '32FC1 [m] or 16UC1 [mm], registered to the image (parameter depth: image)',
    ),
    'cloud': (
        'cloud',
        '{camera}/depth/points',
        'sensor_msgs/msg/PointCloud2',
        'organised cloud, registered to the image (parameter depth: cloud)',
    ),
}
"""Input: its topic with one unnamed camera, with named cameras, type and meaning."""


class CameraSubscriptions:
    """Subscriptions of one camera, to `topic` and beside it; they exist while it is active."""

    def __init__(
        self,
        node: Any,
        stream: CameraStream,
        mailbox: Mailbox,
        settings: Settings,
        camera: CameraSettings,
    ) -> None:
        self._node, self._stream = node, stream
        self._input_qos = camera.input_qos
        self._subscriptions: list[Any] = []
        given, _ = _resolve(node, 'image', stream.name)
        # Who remaps to .../compressed means that topic, whatever image_transport says.
        image = given.removesuffix(COMPRESSED)
        raw = camera.image_transport == 'raw' and image == given
        self._type = Image if raw else CompressedImage
        self.topic = image if raw else f'{image}{COMPRESSED}'
        if not raw and image == given:
            # A remap of the image topic does not reach its sibling by itself.
            own, remapped = _resolve(node, 'image/compressed', stream.name)
            self.topic = own if remapped else self.topic
        stream.subscribed_at = time.monotonic()
        info, remapped = _resolve(node, 'camera_info', stream.name)
        info = info if remapped else f'{image.rpartition("/")[0]}/camera_info'
        stream.rectified = is_rectified(self.topic)
        stream.depth = None if settings.depth == 'none' else DepthPairing()
        self._mailbox = mailbox
        self._create(self._type, self.topic, lambda message: mailbox.put(stream, message))
        self._create(CameraInfo, info, self._store_info)
        if settings.depth != 'none':
            kind, name = (Image, 'depth') if settings.depth == 'image' else (PointCloud2, 'cloud')
            stream.depth_topic, _ = _resolve(node, name, stream.name)
            self._create(kind, stream.depth_topic, self._store_depth, DEPTH_QUEUE)

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def mismatch(self) -> str:
        """Why no publisher of the image topic can reach us; '' when one can or none is there."""
        own = self._subscriptions[0].qos_profile
        ends = self._node.get_publishers_info_by_topic(self.topic)
        sibling = input_topic('image/compressed', self._stream.name)
        problems = mismatches(ends, self.topic, type_name(self._type), own, sibling=sibling)
        return '; '.join(problems) if len(problems) == len(ends) else ''

    def _create(
        self, kind: Any, topic: str, callback: Callable[[Any], Any], queue: int | None = None
    ) -> None:
        subscription = self._node.create_subscription(
            kind,
            topic,
            callback,
            qos.profile(self._input_qos, queue),
            # The check that runs every second says more than rclpy's own line would.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._subscriptions.append(subscription)

    def _store_depth(self, message: Any) -> None:
        if self._stream.depth is not None and self._stream.depth.put(message):
            self._mailbox.wake()

    def _store_info(self, message: Any) -> None:
        self._stream.camera_info = message


def publishers(node: Any, topic: str) -> list[str]:
    """Full names of the nodes that publish a topic, once for each publisher."""
    ends = node.get_publishers_info_by_topic(topic)
    return sorted(f'{end.node_namespace.rstrip("/")}/{end.node_name}' for end in ends)


def output_events(changed: Callable[[], None]) -> Any:
    """Event callbacks of a publisher that call `changed` when a subscriber's QoS does not fit."""
    return PublisherEventCallbacks(
        incompatible_qos=lambda event: changed(), use_default_callbacks=False
    )


def mismatches(
    endpoints: Any,
    topic: str,
    kind: str,
    own: QoSProfile,
    offered: bool = True,
    sibling: str = 'image/compressed',
) -> list[str]:
    """
    Say which other ends of a topic do not meet ours, and why.

    Args:
        kind: our message type, as ``sensor_msgs/msg/Image``.
        offered: True when the others publish, False when they subscribe.
        sibling: our name of the same as compressed images.
    """
    problems = []
    for end in endpoints:
        who = f'{end.node_namespace.rstrip("/")}/{end.node_name}'
        if end.topic_type != kind:
            problem = f'{topic}: {who} has type {end.topic_type}, this node {kind}'
            if end.topic_type.endswith('/CompressedImage'):
                # Named by its own base the topic would be looked for at .../compressed.
                problem += f'; set image_transport:=compressed and remap {sibling}:={topic}'
            problems.append(problem)
            continue
        theirs = end.qos_profile
        pair = (theirs, own) if offered else (own, theirs)
        compatible, reason = qos_check_compatible(*map(_without_infinity, pair))
        if compatible == QoSCompatibility.ERROR:
            problems.append(
                f'{topic}: QoS of {who} ({qos.describe(theirs)}) does not fit ours '
                f'({qos.describe(own)}): {reason.strip().rstrip(";")}'
            )
    return problems


def input_topic(name: str, camera: str) -> str:
    """Relative name of an input of a camera ('' = the only, unnamed one)."""
    single, many = INPUTS[name][:2]
    return many.format(camera=camera) if camera else single


def _resolve(node: Any, name: str, camera: str) -> tuple[str, bool]:
    """Full name of an input, and whether the user remapped it."""
    topic = input_topic(name, camera)
    full = str(node.resolve_topic_name(topic))
    return full, full != node.resolve_topic_name(topic, only_expand=True)


def type_name(kind: Any) -> str:
    """Name of a message class as the graph tells it, ``sensor_msgs/msg/Image``."""
    package, _, rest = kind.__module__.partition('.')
    return f'{package}/{rest.split(".")[0]}/{kind.__name__}'


def _without_infinity(settings: QoSProfile) -> QoSProfile:
    """The graph tells 'no deadline' as an infinite one, which rmw takes for a demand."""
    finite = {
        name: value
        for name in ('deadline', 'liveliness_lease_duration')
        if (value := getattr(settings, name)).nanoseconds < INFINITE
    }
    return QoSProfile(
        depth=max(settings.depth, 1),
        reliability=settings.reliability,
        durability=settings.durability,
        liveliness=settings.liveliness,
        **finite,
    )
