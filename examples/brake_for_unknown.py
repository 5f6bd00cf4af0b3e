# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Brake for unknown objects: a small node that turns detections into a stop flag.

    python3 examples/brake_for_unknown.py --ros-args -r detections_json:=/ood/detections_json

Publishes std_msgs/Bool on `stop`: true while something unknown on the road (or anywhere, with a
profile that knows no road) reaches into the lower part of the image and is large enough, and also
while no detections arrive at all, because a perception that is silent is no proof of a free road.
An example, not a safety function.
"""

from __future__ import annotations

import json
import time
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import Bool, String


def is_dangerous(
    detection: dict[str, Any], height: int, min_area: int, lower_part: float, on_road: bool
) -> bool:
    """
    Decide about one object.

    Args:
        detection: entry of `detections` in the message, with box, area and surroundings.
        height: of the camera image in pixels.
        min_area: pixels that the object must have.
        lower_part: share 0..1 of the image, counted from below, into which its box must reach.
        on_road: whether it must stand on the road. A profile without classes cannot tell
            (surroundings 'none'); then its place in the image decides alone.

    """
    if on_road and detection['surroundings'] not in ('on_road', 'none'):
        return False
    bottom = float(detection['box'][3])
    return int(detection['area']) >= min_area and bottom >= (1.0 - lower_part) * height


class BrakeForUnknown(Node):
    """Subscribe `detections_json`, publish `stop` with every frame and ten times a second."""

    def __init__(self, **options: Any) -> None:
        super().__init__('brake_for_unknown', **options)
        self.min_area = int(self.declare_parameter('min_area', 400).value)
        self.lower_part = float(self.declare_parameter('lower_part', 0.5).value)
        self.on_road = bool(self.declare_parameter('on_road', True).value)
        self.hold = float(self.declare_parameter('hold', 0.5).value)
        self.stale_after = float(self.declare_parameter('stale_after', 1.0).value)
        self._heard = self._danger = float('-inf')
        self._publisher = self.create_publisher(Bool, 'stop', 1)
        self.create_subscription(String, 'detections_json', self._listen, 1)
        # A timer on ROS time would stand still while a bag is paused, and so would the brake.
        self.create_timer(0.1, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _listen(self, message: String) -> None:
        try:
            frame = json.loads(message.data)
            danger = any(
                is_dangerous(found, frame['height'], self.min_area, self.lower_part, self.on_road)
                for found in frame['detections']
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            text = f'detections cannot be read: {error!r}'
            self.get_logger().error(text, throttle_duration_sec=5.0)
            return
        self._heard = time.monotonic()
        if danger:
            self._danger = self._heard
        self._publish()

    def _publish(self) -> None:
        now = time.monotonic()
        silent = now - self._heard > self.stale_after
        self._publisher.publish(Bool(data=silent or now - self._danger <= self.hold))


def main() -> None:
    """Run the node until it is told to stop."""
    rclpy.init()
    node = BrakeForUnknown()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
