# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A node of one's own for a tool: own context, so that tools run beside each other in threads."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher

from ood_perception.ros.process import prepare

SETTLE = 0.5
"""
Seconds between finding a subscriber and the first message: a publisher may know of a subscriber
before that one knows of it, and of the subscriber to one topic before that to its sibling.
"""


@contextlib.contextmanager
def tool_node(name: str) -> Iterator[Node]:
    """Node that lives as long as the `with` block, spun by a thread of its own."""
    prepare()
    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node(f'{name}_{os.getpid()}', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set() and context.ok():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=serve, name=name, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        ended.set()
        executor.wake()
        thread.join(timeout=5)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def message_class(kind: str) -> Any:
    """
    Class of a message type such as ``sensor_msgs/msg/Image``.

    Raises:
        ImportError: its package is not installed; the text names it.
    """
    package, _, name = kind.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(f'message type {kind} is not installed (package {package})') from error


def flush(publishers: Iterable[Publisher | None]) -> None:
    """Give the last messages time to leave."""
    for publisher in publishers:
        if publisher is not None and publisher.get_subscription_count():
            publisher.wait_for_all_acked(Duration(seconds=2))
    time.sleep(0.2)


def wait_until(
    condition: Callable[[], bool], timeout: float, stop: threading.Event | None
) -> bool:
    """Poll until the condition holds; False after `timeout` seconds or when `stop` is set."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= end or (stop is not None and stop.is_set()):
            return False
        time.sleep(0.02)
    return True
