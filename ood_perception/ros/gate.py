# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A gate for planners: is the zone ahead clear, is something unknown in it, or are we blind?

``~/state`` is a latched diagnostic_msgs/DiagnosticStatus whose level a planner can compare without
reading text: OK = clear, WARN = unknown ahead, ERROR = blind; its message says why. It is sent
with every frame that was looked at and every `HEARTBEAT` seconds: silence means a dead node.

`gate_looks` looks in a row at something stop: one alone is the commonest false alarm. It takes
`LOOKS` clear ones in a row, and `gate_hold` seconds without the object, to be clear again, also
after blindness. What was only moved from an earlier frame, and
a frame that no object was looked for in, are no looks.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ood_perception.frames.decode import stamp_ns
from ood_perception.frames.zones import inside
from ood_perception.result import SURROUNDINGS, Result
from ood_perception.ros.diagnostics import status
from ood_perception.ros.health import Health, Level
from ood_perception.ros.image_topic import heard
from ood_perception.ros.settings import Settings

HEARTBEAT = 0.2
"""Seconds between two messages where no frame comes."""

LOOKS = 3
"""Looks in a row without an object that it takes to be clear again."""

STATES = {Level.OK: 'clear', Level.WARN: 'unknown ahead', Level.ERROR: 'blind'}

TOPICS = {
    'state': (
        'diagnostic_msgs/msg/DiagnosticStatus',
        'latched: OK = gate_zone is clear, WARN = something unknown is in it, ERROR = blind, with '
        'the reason; with every detection and five times a second',
    )
}
"""Topic: type and meaning."""


class Gate:
    """What the looks at one camera's frames say about its zone; times are steady seconds."""

    def __init__(self) -> None:
        self._clear_looks = self._occupied = 0
        self._clear = False
        self._looked = self._seen = -math.inf
        self._what = ''

    def look(self, what: str, received: float, needed: int) -> None:
        """Note a look at a frame received then: what is in the zone, '' = nothing."""
        self._looked = max(self._looked, received)
        if not what:
            self._clear_looks, self._occupied = self._clear_looks + 1, 0
            return
        self._occupied += 1
        if self._occupied >= needed or not self._clear:
            self._what, self._seen, self._clear_looks = what, received, 0

    def verdict(self, now: float, hold: float, timeout: float, blind: str) -> tuple[Level, str]:
        """
        Judge the zone now.

        Args:
            now: steady time.
            hold: seconds of looks without it for which something seen counts as still there.
            timeout: seconds after which a look is too old to say anything.
            blind: why nothing can be seen whatever was seen before, or ''.
        """
        if not blind and now - self._looked > timeout:
            never = math.isinf(self._looked)
            blind = 'no frame was looked at yet' if never else 'no fresh result'
        if blind:
            self._clear_looks, self._clear = 0, False
            return Level.ERROR, blind
        if self._looked - self._seen <= hold or (self._clear_looks < LOOKS and self._what):
            self._clear = False
            return Level.WARN, self._what
        if self._clear_looks < LOOKS:
            return Level.ERROR, f'{self._clear_looks} of {LOOKS} looks'
        self._what, self._clear = '', True
        return Level.OK, 'nothing unknown in the zone'


class StateTopic:
    """
    ``~/state`` of one camera.

    Args:
        publisher: of the topic, there in every lifecycle state.
        name: fully qualified name of the node, and the camera.
        why_blind: tells why nothing can be seen at the moment, or ''.
        details: further words for a result that stays out, or ''.
    """

    def __init__(
        self, publisher: Any, name: str, why_blind: Callable[[], str], details: Callable[[], str]
    ) -> None:
        self.publisher = publisher
        self._name, self._why_blind, self._details = name, why_blind, details
        self._gate, self._stamp, self._no_objects = Gate(), 0, False
        self._lock = threading.Lock()

    @property
    def wanted(self) -> bool:
        """Whether somebody subscribes, so that objects must be looked for."""
        return heard(self.publisher)

    def look(self, header: Any, received: float, result: Result, settings: Settings) -> None:
        """Take a frame's own result (on the host, objects selected) and say what follows."""
        with self._lock:
            self._no_objects = result.boxes is None
            if not self._no_objects:
                self._stamp = stamp_ns(header)
                self._gate.look(in_zone(result, settings), received, settings.gate_looks)
        self.tell(settings)

    def tell(self, settings: Settings) -> None:
        """Send the state of now."""
        with self._lock:
            blind = self._why_blind()
            hold, timeout = settings.gate_hold, settings.gate_timeout
            level, text = self._gate.verdict(time.monotonic(), hold, timeout, blind)
            if level == Level.ERROR and not blind and (more := self._excuse()):
                text = f'{text}: {more}'
            self._send(level, text, stamp_ns=self._stamp)

    def end(self, text: str) -> None:
        """Say for the last time that nothing is seen."""
        with self._lock:
            self._send(Level.ERROR, text)

    def _excuse(self) -> str:
        if not self.wanted:
            return 'nobody subscribes to it, so nothing is looked for'
        return 'the profile outlines no objects' if self._no_objects else self._details()

    def _send(self, level: Level, text: str, **more: Any) -> None:
        values = {'state': STATES[level], **more}
        self.publisher.publish(status(self._name, level, text, 'ood_perception', values))


def in_zone(result: Result, settings: Settings) -> str:
    """Say which of a frame's objects count and reach into the zone; '' = none."""
    if result.boxes is None or not len(result.boxes) or result.instances is None:
        return ''
    zone = inside((settings.gate_zone,), *result.instances.shape)
    present = np.bincount(result.instances[zone], minlength=1 << 16)
    found = []
    for i, number in enumerate(np.asarray(result.ids).astype(int)):
        around = 'none' if result.surroundings is None else SURROUNDINGS[result.surroundings[i]]
        elsewhere = settings.gate_on_road and around not in ('on_road', 'none')
        area = present[number] if result.areas is None else result.areas[i]
        if present[number] and area >= settings.gate_area and not elsewhere:
            found.append(f'object {number} ({area} px)')
    return ', '.join(found)


def why_blind(state: str, worker: Any, health: Health) -> str:
    """Say why a node sees nothing at the moment, whatever results it has given; '' = it may."""
    if state != 'active' or worker is None:
        return f'the node is {state}'
    if worker.doing:
        return str(worker.doing)
    if not worker.enabled:
        return 'disabled by ~/enable'
    if worker.learning:
        return 'learning what is normal'
    return '; '.join(str(i) for i in health.issues() if i.level == Level.ERROR)
