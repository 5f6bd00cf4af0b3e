# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Every ROS test runs over real DDS, in a domain of its own, confined to this machine."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ood_perception.ros.tools.domain import private_domain

# All of this must stand in the environment before rclpy loads its middleware, and child processes
# inherit it, so a test's publisher and node meet each other and nobody else.
_own = contextlib.ExitStack()  # each worker of xdist keeps a domain to itself until it ends
if 'OOD_TEST_DOMAIN_ID' in os.environ:
    os.environ['ROS_DOMAIN_ID'] = os.environ['OOD_TEST_DOMAIN_ID']
else:
    _own.enter_context(private_domain())
    atexit.register(_own.close)  # a generator that is left open ends when `os` is gone
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_LOCALHOST_ONLY'] = '1' if os.environ.get('ROS_DISTRO') == 'humble' else '0'
_older = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')
os.environ[f'FAST{"RTPS" if _older else "DDS"}_DEFAULT_PROFILES_FILE'] = str(
    Path(__file__).resolve().parents[2] / 'config' / 'fastdds.xml'
)

import pytest  # noqa: E402

rclpy = pytest.importorskip('rclpy', reason='needs rclpy (a sourced ROS 2 or the PyPI wheels)')


# Longest first: the workers take one file after another, in this order, and one that begins late
# would be alone at the end.
LONGEST = (
    'test_recovery.py',
    'test_propagation_in_node.py',
    'test_multi_camera.py',
    'test_rosbag2.py',
    'test_start.py',
    'test_faults.py',
    'test_node.py',
    'test_gate.py',
    'test_planner_topics.py',
    'test_site.py',
    'test_shipped_weights.py',
    'test_services.py',
    'test_lifecycle.py',
    'test_tools.py',
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture(scope='session')
def ros() -> Iterator[None]:
    """Initialise rclpy once for the session."""
    if not rclpy.ok():
        rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def ros_node(ros: None) -> Iterator[rclpy.node.Node]:
    """A fresh node, destroyed after the test."""
    node = rclpy.create_node(f'test_{os.getpid()}_{time.monotonic_ns()}')
    yield node
    node.destroy_node()


@pytest.fixture
def spin_until(ros_node: rclpy.node.Node) -> Callable[..., bool]:
    """Spin `ros_node` until a condition holds; returns whether it came to hold."""

    def spin(condition: Callable[[], bool], timeout: float = 30.0) -> bool:
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                return False
            rclpy.spin_once(ros_node, timeout_sec=0.05)
        return True

    return spin
