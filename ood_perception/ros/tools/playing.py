# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Replay of a bag over DDS: the recorded bytes, untouched, at the recorded pace."""

from __future__ import annotations

import functools
import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from ood_perception.bags import reading as bag
from ood_perception.ros import qos
from ood_perception.ros.image_topic import heard
from ood_perception.ros.tools.session import SETTLE, flush, message_class, tool_node, wait_until

log = logging.getLogger(__name__)


def play(
    path: str | Path,
    *,
    topics: Sequence[str] = (),
    rate: float = 1.0,
    clock: float = 0.0,
    loop: int = 1,
    start: float = 0.0,
    remap: dict[str, str] | None = None,
    wait_for: Sequence[str] = (),
    wait_timeout: float = 30.0,
    stop: threading.Event | None = None,
    on_progress: Callable[[float, float], None] | None = None,
    hold: Callable[[str], None] | None = None,
) -> dict[str, int]:
    """
    Publish a bag's messages.

    Args:
        topics: to be played, empty for all.
        rate: speed, 1 = as recorded, 2 = twice as fast.
        clock: publish /clock at this many Hz of wall time, 0 = not at all.
        loop: how many times to play it, 0 = until stopped.
        start: seconds of the bag to leave out.
        remap: recorded topic -> topic to publish to.
        wait_for: topics (as published) that must have a subscriber before the first message.
        on_progress: is told the seconds of the bag that were played and its length in seconds.
        hold: is called with the published topic before each message, and may wait.

    Returns:
        Messages sent per published topic.

    Raises:
        BagError: no such bag or topic, nothing in it to play, nobody subscribed in time.
        ValueError: rate, clock, loop or start out of range.
    """
    if not rate > 0:
        raise ValueError(f'rate: expected more than 0, got {rate}')
    if clock < 0 or loop < 0 or start < 0:
        raise ValueError(f'clock, loop, start: expected 0 or more, got {clock}, {loop}, {start}')
    stop = stop or threading.Event()
    remap = remap or {}
    with bag.Bag(path) as reader, tool_node('ood_play') as node:
        if reader.damage:
            log.warning('%s: %s', path, reader.damage)
        connections = _choose(path, reader.connections, topics, remap)
        publishers = _publishers(node, connections, remap)
        connections = [c for c in connections if c.id in publishers]
        if not connections:
            raise bag.BagError(f'{path}: none of its message types is installed')
        by_topic = {p.topic_name: p for p in publishers.values()}
        for name in wait_for:
            publisher = by_topic.get(node.resolve_topic_name(name))
            if publisher is None:
                raise bag.BagError(f'wait for {name}: not played; played are {sorted(by_topic)}')
            if not wait_until(functools.partial(heard, publisher), wait_timeout, stop):
                if stop.is_set():
                    return dict.fromkeys(by_topic, 0)
                raise bag.BagError(f'nobody subscribed to {name} within {wait_timeout:g} s')
        if wait_for:
            stop.wait(SETTLE)
        clock_publisher = None
        if clock:
            kind = message_class('rosgraph_msgs/msg/Clock')
            clock_publisher = node.create_publisher(kind, '/clock', 10)
        sent = dict.fromkeys(by_topic, 0)
        first = reader.start_time + round(start * 1e9)
        length = max(0.0, (reader.end_time - first) / 1e9)
        for _ in range(loop) if loop else itertools.count():
            if stop.is_set():
                break
            pace = _Pace(first, rate, clock, clock_publisher, stop)
            stamp = first
            for connection, stamp, raw in reader.messages(connections=connections, start=first):
                if not pace.wait(stamp):
                    break
                publisher = publishers[connection.id]
                if hold is not None:
                    hold(publisher.topic_name)
                publisher.publish(bytes(raw))
                sent[publisher.topic_name] += 1
                if on_progress is not None:
                    on_progress((stamp - first) / 1e9, length)
            pace.tell(stamp)
            if not any(sent.values()) and not stop.is_set():
                after = f' after the first {start:g} s' if start else ''
                names = ', '.join(sorted(by_topic))
                raise bag.BagError(f'{path}: no message to play{after} on {names}')
        if not stop.is_set():
            flush(publishers.values())
        return sent


class _Pace:
    """Waits for each message's turn and publishes the time meanwhile, at its own rate."""

    def __init__(
        self, first: int, rate: float, clock: float, publisher: Any, stop: threading.Event
    ) -> None:
        self.first, self.rate, self.stop = first, rate, stop
        self.publisher = publisher
        self.step = 1 / clock if clock else 1.0
        self.begin = self.tick = time.monotonic()
        self.told = -1

    def wait(self, stamp: int) -> bool:
        """Sleep until the message of a recorded time is due; False when stopped."""
        due = self.begin + (stamp - self.first) / 1e9 / self.rate
        while not self.stop.is_set():
            now = time.monotonic()
            if now >= self.tick:
                # What was missed while a large message was sent is not made up for by a burst.
                self.tick += self.step * max(1, math.ceil((now - self.tick) / self.step))
                self.tell(min(self.first + int((now - self.begin) * self.rate * 1e9), stamp))
            if now >= due:
                return True
            self.stop.wait(max(0.0, min(due, self.tick) - now))
        return False

    def tell(self, stamp: int) -> None:
        """Publish a time in ns on /clock, unless it was told already."""
        if self.publisher is None or stamp <= self.told:
            return
        from builtin_interfaces.msg import Time
        from rosgraph_msgs.msg import Clock

        self.told = stamp
        self.publisher.publish(Clock(clock=Time(sec=stamp // 10**9, nanosec=stamp % 10**9)))


def _choose(
    path: Any, connections: list[Any], topics: Sequence[str], remap: dict[str, str]
) -> list[Any]:
    names = sorted({c.topic for c in connections})
    missing = [name for name in (*topics, *remap) if name not in names]
    if missing:
        raise bag.BagError(f'{path} has no topic {", ".join(missing)}; it has {", ".join(names)}')
    chosen = [c for c in connections if not topics or c.topic in topics]
    if not chosen:
        raise bag.BagError(f'{path} has no topics')
    return chosen


def _publishers(node: Node, connections: list[Any], remap: dict[str, str]) -> dict[int, Publisher]:
    publishers = {}
    for connection in connections:
        try:
            kind = message_class(connection.msgtype)
        except ImportError as error:
            log.warning('%s is left out: %s', connection.topic, error)
            continue
        topic = remap.get(connection.topic, connection.topic)
        publishers[connection.id] = node.create_publisher(kind, topic, recorded_qos(connection))
    return publishers


def recorded_qos(connection: Any) -> QoSProfile:
    """QoS that the recorded publisher offered, else reliable; a history of at least 10."""
    offered = list(getattr(connection.ext, 'offered_qos_profiles', None) or [])
    made = qos.profile('default')
    if not offered:
        return made
    first = offered[0]
    if first.reliability.value == ReliabilityPolicy.BEST_EFFORT.value:
        made.reliability = ReliabilityPolicy.BEST_EFFORT
    if first.durability.value == DurabilityPolicy.TRANSIENT_LOCAL.value:
        made.durability = DurabilityPolicy.TRANSIENT_LOCAL
    if first.history.value == HistoryPolicy.KEEP_ALL.value:
        made.history = HistoryPolicy.KEEP_ALL
    made.depth = max(10, min(int(first.depth), 1000))
    return made
