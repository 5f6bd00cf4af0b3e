# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The process `ood_node`: one `OodNode`, spun until a signal comes."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from typing import Any

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation

from ood_perception.ros import memory

SETTLE = 0.1
"""Seconds in which acknowledgements of the last answers arrive before what they are for is gone.

Twice, in hundreds of ends, a thread of Fast DDS crashed while services were destroyed, each time
right after one of them had answered.
"""


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; the exit code is 0 then, 1 when it cannot start."""
    memory.prepare()
    rclpy.init(args=args)
    node: Any = None
    executor = SingleThreadedExecutor()
    try:
        from ood_perception.ros.node import OodNode  # imports torch, for which memory is prepared

        node = OodNode()
        executor.add_node(node)
        if node.settings.autostart:
            node.start()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ParameterException as error:
        print(f'ood_node: {error}', file=sys.stderr)
        return 1
    except RuntimeError:
        if rclpy.ok():
            raise
        # The signal came while the node was being made.
    finally:
        if node is not None:
            node.stop()
            executor.shutdown()
            time.sleep(SETTLE)
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def run() -> None:
    """Run `main` as a process of its own; where a library crashes, its log says in which call."""
    faulthandler.enable()
    code = main()
    rclpy_implementation.rclpy_logging_fini()  # writes what the log file still lacks
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # All is given back by now. Unloading torch, OpenVINO and Fast DDS would take seconds, of the
    # five that `ros2 launch` waits, in an order that none of them was made for.
    os._exit(code)


if __name__ == '__main__':
    run()
