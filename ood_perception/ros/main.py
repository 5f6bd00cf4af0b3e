# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The process `ood_node`: one `OodNode`, spun until a signal comes.

It says what is wrong with the parameter files of its command line, of which rcl says little.
"""

from __future__ import annotations

import gc
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

KEY = 'ros__parameters'
UNREADABLE = (OSError, ValueError, yaml.YAMLError)

SETTLE = 0.1
"""Seconds in which acknowledgements of the last answers arrive before what they are for is gone.

Twice, in hundreds of ends, a thread of Fast DDS crashed while services were destroyed, each time
right after one of them had answered.
"""


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; 0 when it was, 1 when it could not start."""
    import rclpy
    from rclpy.exceptions import ParameterException
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    from ood_perception.ros.process import prepare

    prepare()
    try:
        rclpy.init(args=args)
    except Exception as error:
        why = unreadable(sys.argv if args is None else args)
        return _refuse(error, *why)
    node: Any = None
    executor = SingleThreadedExecutor()
    try:
        from ood_perception.ros.node import OodNode

        node = OodNode()
        name = node.get_fully_qualified_name()
        for line in problems(sys.argv if args is None else args, name):
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


def problems(arguments: Sequence[str], node: str) -> list[str]:
    """Name the parameter files without an entry for a node, one line each."""
    lines = unreadable(arguments)
    for path in files(arguments):
        try:
            patterns = list(entries(_tree(path)))
        except UNREADABLE:
            continue
        if not any(matches(pattern, node) for pattern in patterns):
            found = ', '.join(patterns) or 'nothing'
            lines.append(
                f'{path} has no entry for {node}, it is ignored; it has one for {found}. Write '
                f'/**: or {node}: above {KEY}:'
            )
    return lines


def unreadable(arguments: Sequence[str]) -> list[str]:
    """Say why parameter files cannot be read, one line each; rcl itself names a line at most."""
    lines = []
    for path in files(arguments):
        try:
            _tree(path)
        except UNREADABLE as error:
            why = getattr(error, 'strerror', None) or ' '.join(str(error).split())
            lines.append(f'{path}: {why}')
    return lines


class _Keys(yaml.SafeLoader):
    """Passes over tags as rcl does: launch_ros writes lists as ``!!python/tuple``."""


_Keys.add_constructor(None, lambda loader, node: None)


def _tree(path: Path) -> Any:
    return yaml.load(path.read_text(encoding='utf-8'), _Keys)


def files(arguments: Sequence[str]) -> list[Path]:
    """Files that follow ``--params-file``."""
    pairs = itertools.pairwise(arguments)
    return [Path(value) for option, value in pairs if option == '--params-file']


def entries(tree: Any, prefix: str = '') -> Iterator[str]:
    """Names and patterns of nodes that have an entry in a parsed parameter file."""
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key == KEY:
            yield prefix or '/'
        elif isinstance(value, dict):
            yield from entries(value, f'{prefix}/{str(key).strip("/")}')


def matches(pattern: str, node: str) -> bool:
    """Whether a pattern as ``/**``, ``/*/ood`` or ``/robot/ood`` means a node."""
    parts = re.split(r'(/\*\*|\*)', '/' + pattern.strip('/'))
    words = {'/**': r'(/[^/]+)*', '*': '[^/]+'}
    return re.fullmatch(''.join(words.get(p, re.escape(p)) for p in parts), node) is not None


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
