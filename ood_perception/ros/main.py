# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The process `ood_node`: one `OodNode`, spun until a signal comes."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from typing import Any

SETTLE = 0.1
"""Seconds in which acknowledgements of the last answers arrive before what they are for is gone.

Twice, in hundreds of ends, a thread of Fast DDS crashed while services were destroyed, each time
right after one of them had answered.
"""


def main(args: list[str] | None = None) -> int:
    """
    Run the node until it is told to stop.

    Returns:
        0 when a signal or a shutdown ended it, 1 when it could not start.
    """
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    from ood_perception.ros import parameter_files, process

    process.prepare()
    try:
        rclpy.init(args=args)
    except Exception as error:
        why = parameter_files.unreadable(sys.argv if args is None else args)
        return _refuse(error, *why)
    node: Any = None
    executor = SingleThreadedExecutor()
    try:
        from ood_perception.ros.node import OodNode

        node = OodNode()
        name = node.get_fully_qualified_name()
        for line in parameter_files.problems(sys.argv if args is None else args, name):
            node.report('warn', line)
        executor.add_node(node)
        if node.settings.autostart and not node.start() and rclpy.ok():
            return 1
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ParameterException, ValueError) as error:
        return _refuse(error)
    except Exception as error:
        if stopped():
            return 0  # The signal came while the node was being made, or a message was read.
        if node is None and type(error).__module__.startswith('rclpy'):
            return _refuse(error)
        raise
    finally:
        if node is not None:
            node.stop()
            executor.shutdown()
            time.sleep(SETTLE)
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def stopped(timeout: float = 0.5) -> bool:
    """
    Whether a signal ends rclpy, at the latest `timeout` seconds from now.

    Python's part of the signal may break a call of rclpy's before its own part has shut it down.
    """
    import rclpy

    end = time.monotonic() + timeout
    while rclpy.ok() and time.monotonic() < end:
        time.sleep(0.01)
    return not rclpy.ok()


def _refuse(error: Exception, *why: str) -> int:
    """Say in one line why the node does not start."""
    text = ' -> '.join([' '.join(str(error).split()), *why])
    if 'PARAMETER_NOT_SET' in text:
        text += ' -> a parameter is given an empty list, which has no type in ROS 2: leave it out'
    if 'log directory' in text or 'logging' in text:
        folder = os.environ.get('ROS_LOG_DIR') or os.environ.get('ROS_HOME') or '~/.ros/log'
        text += f' -> {folder} cannot be written: set ROS_LOG_DIR to a folder that can'
    print(f'ood_node: {text}', file=sys.stderr)
    return 1


def run() -> None:
    """Run `main` as a process of its own; where a library crashes, its log says in which call."""
    # Ctrl-C in the first second, while rclpy is being imported and handles no signal yet.
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
    import faulthandler

    import rclpy
    from rclpy.impl.implementation_singleton import rclpy_implementation

    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main()
    except KeyboardInterrupt:
        rclpy.try_shutdown()
        code = 0
    # The middleware's 70 MB of shared memory go with the last thing of rclpy's that refers to it,
    # and such things refer to each other.
    gc.collect()
    rclpy_implementation.rclpy_logging_fini()  # writes what the log file still lacks
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # All is given back by now. Unloading torch, OpenVINO and Fast DDS would take seconds, of the
    # five that `ros2 launch` waits, in an order that none of them was made for.
    os._exit(code)


if __name__ == '__main__':
    run()
