# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Recording topics from DDS into a bag: the received bytes, untouched."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from ood_perception.bags import reading as bag
from ood_perception.bags import writing
from ood_perception.ros import qos
from ood_perception.ros.tools.session import message_class, tool_node

log = logging.getLogger(__name__)

DEPTH = 100  # messages of a topic that the middleware may hold for us

BACKLOG = 256 * 2**20
"""Bytes that may wait while the disk is busy; what comes then is lost, and told."""


def record(
    path: str | Path,
    topics: Sequence[str] = (),
    until: Callable[[dict[str, int]], bool] | None = None,
    *,
    seconds: float = 0.0,
    storage: str = 'mcap',
    types: dict[str, str] | None = None,
    stop: threading.Event | None = None,
    ready: threading.Event | None = None,
    on_progress: Callable[[dict[str, int]], None] | None = None,
) -> dict[str, int]:
    """
    Write what is published into a new rosbag2 bag until told to stop.

    Topics that do not exist yet are waited for; a topic is subscribed with the reliability and
    durability that its publishers offer. Messages are stored under the time of reception.

    Args:
        topics: to be recorded, empty for all there are and will be.
        until: ends the recording when it returns True for the counts so far.
        seconds: longest duration, 0 = without end.
        storage: 'mcap' or 'sqlite3'.
        types: topic -> message type, for topics whose publisher comes later; saves the discovery.
        ready: is set once every topic of `topics` is subscribed.
        on_progress: is told the counts about five times a second.

    Returns:
        Messages per topic.

    Raises:
        BagError: as `writing.open_writer`.
    """
    stop = stop or threading.Event()
    with writing.open_writer(path, storage) as writer, tool_node('ood_record') as node:
        recorder = _Recorder(writer, node, list(topics), types or {})
        end = time.monotonic() + seconds if seconds else float('inf')
        told = 0.0
        while not stop.is_set() and time.monotonic() < end:
            recorder.discover()
            if ready is not None and recorder.complete:
                ready.set()
            # The writer belongs to this thread: sqlite3 refuses others.
            recorder.write(timeout=0.05)
            if on_progress is not None and time.monotonic() - told > 0.2:
                told = time.monotonic()
                on_progress(dict(recorder.counts))
            if until is not None and until(dict(recorder.counts)):
                break
        recorder.close()
        if on_progress is not None:
            on_progress(dict(recorder.counts))
        return dict(recorder.counts)


class _Recorder:
    """Subscriptions and the writer that they fill."""

    def __init__(self, writer: Any, node: Node, topics: list[str], types: dict[str, str]) -> None:
        self.writer, self.node = writer, node
        self.wanted = [node.resolve_topic_name(name) for name in topics]
        self.types = {node.resolve_topic_name(name): kind for name, kind in types.items()}
        self.store = bag.typestore()
        self.counts: dict[str, int] = dict.fromkeys(self.wanted, 0)
        self.given_up: set[str] = set()
        self.lost: Counter[str] = Counter()
        self.received: queue.SimpleQueue[tuple[str, Any, int, bytes]] = queue.SimpleQueue()
        self.waiting = 0
        self.lock = threading.Lock()
        self.subscribed: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether every wanted topic is subscribed."""
        return self.subscribed.issuperset(self.wanted)

    def discover(self) -> None:
        """Subscribe to wanted topics that are known by now."""
        if self.wanted and self.complete:
            return
        known = {name: kinds[0] for name, kinds in self.node.get_topic_names_and_types()}
        for name in self.wanted or list(known):
            kind = self.types.get(name) or known.get(name)
            if kind is None or name in self.subscribed or name in self.given_up:
                continue
            # Without a publisher there is no QoS to follow yet, unless the type was given.
            if name not in self.types and not self.node.count_publishers(name):
                continue
            try:
                self._subscribe(name, kind)
            except ImportError as error:
                log.warning('%s is left out: %s', name, error)
                self.given_up.add(name)

    def _subscribe(self, name: str, kind: str) -> None:
        message = message_class(kind)
        profile = offered_qos(self.node, name)
        # The bag's metadata wants the definition of the message and the hash of its type.
        if kind not in self.store.types:
            raise ImportError(f'message type {kind} is unknown to the bag writer')
        definition, _ = self.store.generate_msgdef(kind, ros_version=2)
        digest = self.store.hash_rihs01(kind)
        connection = self.writer.add_connection(
            name, kind, msgdef=definition, rihs01=digest, offered_qos_profiles=[_stored(profile)]
        )
        self.counts.setdefault(name, 0)

        def keep(raw: bytes) -> None:
            with self.lock:
                if self.waiting and self.waiting + len(raw) > BACKLOG:
                    self.lost[name] += 1
                    return
                self.waiting += len(raw)
            self.received.put((name, connection, time.time_ns(), raw))

        self.node.create_subscription(message, name, keep, profile, raw=True)
        self.subscribed.add(name)

    def write(self, timeout: float) -> None:
        """Write what was received, waiting at most `timeout` seconds for a first message."""
        try:
            name, connection, stamp, raw = self.received.get(timeout=timeout)
            while True:
                self.writer.write(connection, stamp, raw)
                self.counts[name] += 1
                with self.lock:
                    self.waiting -= len(raw)
                name, connection, stamp, raw = self.received.get_nowait()
        except queue.Empty:
            return

    def close(self) -> None:
        """Take no more messages and write those received so far."""
        for subscription in list(self.node.subscriptions):
            self.node.destroy_subscription(subscription)
        self.write(timeout=0.01)
        for name, count in sorted(self.lost.items()):
            log.warning('%s: %d messages were lost, the disk is too slow', name, count)


def offered_qos(node: Node, topic: str) -> QoSProfile:
    """QoS that receives from every publisher of a topic: as reliable and lasting as all are."""
    offers = [info.qos_profile for info in node.get_publishers_info_by_topic(topic)]
    if not offers:
        return qos.make(False, DEPTH)
    reliable = all(q.reliability != ReliabilityPolicy.BEST_EFFORT for q in offers)
    latched = all(q.durability == DurabilityPolicy.TRANSIENT_LOCAL for q in offers)
    return qos.make(reliable, DEPTH, latched)


def _stored(profile: QoSProfile) -> Any:
    from rosbags import interfaces

    never = interfaces.QosTime(2147483647, 4294967295)
    return interfaces.Qos(
        history=interfaces.QosHistory(profile.history.value),
        depth=profile.depth,
        reliability=interfaces.QosReliability(profile.reliability.value),
        durability=interfaces.QosDurability(profile.durability.value),
        deadline=never,
        lifespan=never,
        liveliness=interfaces.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=never,
        avoid_ros_namespace_conventions=False,
    )
