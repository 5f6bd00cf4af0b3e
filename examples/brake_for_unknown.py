# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Brake for unknown objects: a small node that turns the gate of each camera into one stop flag.

    python3 examples/brake_for_unknown.py --ros-args -p "states:=[/ood/state]"

Publishes std_msgs/Bool on `stop`: false only while every camera's gate says its zone is clear.
Something unknown in the zone, blindness and silence all stop, because a perception that says
nothing is no proof of a free road. What counts, and where, is the perception's business: its
parameters gate_zone, gate_area, gate_on_road, gate_hold and gate_timeout.
An example, not a safety function.
"""

from __future__ import annotations

import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool


class BrakeForUnknown(Node):
    """Subscribe the topics `states`, publish `stop` with every change and ten times a second."""

    def __init__(self, **options: Any) -> None:
        super().__init__('brake_for_unknown', **options)
        topics = list(self.declare_parameter('states', ['/ood/state']).value)
        self.stale_after = float(self.declare_parameter('stale_after', 1.0).value)
        self._newest = dict.fromkeys(topics, (float('-inf'), False))
        self._publisher = self.create_publisher(Bool, 'stop', 1)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for topic in topics:
            self.create_subscription(
                DiagnosticStatus, topic, lambda m, topic=topic: self._listen(topic, m), latched
            )
        # A timer on ROS time would stand still while a bag is paused, and so would the brake.
        self.create_timer(0.1, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _listen(self, topic: str, message: DiagnosticStatus) -> None:
        clear = message.level == DiagnosticStatus.OK
        changed = clear != self._newest[topic][1]
        self._newest[topic] = (time.monotonic(), clear)
        if changed:
            self.get_logger().info(f'{topic}: {message.message}')
            self._publish()

    def _publish(self) -> None:
        oldest = time.monotonic() - self.stale_after
        clear = bool(self._newest) and all(
            heard > oldest and free for heard, free in self._newest.values()
        )
        self._publisher.publish(Bool(data=not clear))


def main() -> None:
    """Run the node until it is told to stop."""
    rclpy.init()
    node = BrakeForUnknown()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:  # a signal may end rclpy while a message is being read
        if rclpy.ok():
            raise
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
