# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What shows in silence only, looked for once a second: no image, no result, a twin of this node.

Each rule raises an issue of the node's `Health` while it holds and clears it when it is over.
"""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from typing import Any

from ood_perception.bags.reading import IMAGE_TYPES
from ood_perception.ros import loading
from ood_perception.ros.alarms import HOW
from ood_perception.ros.camera_stream import MISSED, CameraStream, rate
from ood_perception.ros.health import Health, Level
from ood_perception.ros.settings import Settings
from ood_perception.ros.subscriptions import publishers
from ood_perception.ros.worker import Worker

ABANDONED = 60.0  # seconds after which a call that does not return is given up for a new pipeline
DROP_WINDOW = 10  # checks (seconds) over which dropped frames are counted,
DROP_FRAMES = 30  # and frames that must have come in them

KEYS = (
    'no pipeline', 'hung', 'memory', 'site', 'enabled', 'learning', 'engine', 'budget', 'alarms',
)  # fmt: skip
"""Issues of the pipeline, which end with it."""


class Watchdog:
    """The rules for one configured node."""

    def __init__(self, health: Health) -> None:
        self.health = health
        self._counts: dict[str, deque[tuple[int, int]]] = {}
        self._silent: set[str] = set()

    def watch_node(self, node: Any) -> None:
        """Look for another node of the same name, which would take our services' calls."""
        own = (node.get_name(), node.get_namespace())
        twins = node.get_node_names_and_namespaces().count(own) - 1
        self._warn(
            'name',
            twins > 0,
            f'{twins + 1} nodes are named {node.get_fully_qualified_name()}: topics, services '
            'and diagnostics mix',
            'give each a name or namespace of its own (ood.launch.py name:=, namespace:=)',
        )

    def watch_worker(self, worker: Worker | None, active: bool) -> None:
        """Look for a pipeline that is missing, cannot judge, or does not come back."""
        health = self.health
        if worker is None or not active:
            for key in KEYS:
                health.clear(key)
            return
        self._error(
            'no pipeline',
            not worker.doing and not (worker.alive and worker.pipeline is not None),
            'active without a pipeline: nothing is looked at',
            'deactivate, clean up and configure the node anew',
        )
        self._warn(
            'enabled',
            not worker.enabled,
            'disabled by ~/enable: frames are discarded',
            'call ~/enable with true',
        )
        self._watch_memory(worker)
        self._watch_engine(worker)
        self._watch_alarms(worker)
        busy = time.monotonic() - worker.busy_since if worker.busy_since else 0.0
        limit = max(worker.settings.stale_after, worker.delay_limit())
        hung = busy > limit and not worker.doing
        self._error(
            'hung',
            hung,
            f'the pipeline has not come back from a frame for {busy:.0f} s',
            'another one is loaded after a minute; if it stays, look at the device '
            '(nvidia-smi, dmesg)',
        )
        if hung and busy > max(ABANDONED, 10 * limit):
            worker.fallback.lost(time.monotonic(), f'no return from a frame for {busy:.0f} s')
            worker.check_fallback()

    def watch_camera(
        self, node: Any, stream: CameraStream, worker: Worker, topic: str, mismatch: str
    ) -> None:
        """
        Look at one camera of an active node.

        Args:
            mismatch: why its publishers do not reach us, '' when they do.
        """
        camera, settings = stream.name, worker.settings
        self._error('input', bool(mismatch), mismatch, '', camera)
        names = publishers(node, topic) if node.count_publishers(topic) > 1 else []
        self._warn(
            'publishers',
            len(names) > 1,
            f'{topic} has {len(names)} publishers, {", ".join(names)}: their frames mix',
            'stop all but one, or remap them',
            camera,
        )
        now, text = time.monotonic(), ''
        age = now - stream.last_received
        if not stream.last_received:
            text = f'no image on {topic} yet'
        elif age > max(settings.stale_after, MISSED * stream.usual_interval()):
            text = f'no image on {topic} for {age:.1f} s'
        if text:
            self.health.warn('silent', text, camera=camera, quiet=True)
            waited = now - max(stream.last_received, stream.subscribed_at)
            if not mismatch and camera not in self._silent and waited >= settings.stale_after:
                self._silent.add(camera)  # the log is told once what there is instead
                self.health.report('warn', f'{text}: {self._instead(node, topic)}')
        else:
            self._silent.discard(camera)
            self.health.clear('silent', camera)
        self._watch_results(stream, worker, now)
        self._watch_drops(stream, settings)

    def _instead(self, node: Any, topic: str) -> str:
        own = node.get_fully_qualified_name() + '/'
        others = [
            f'{name} ({kinds[0].rpartition("/")[2]})'
            for name, kinds in node.get_topic_names_and_types()
            if kinds[0] in IMAGE_TYPES
            and name != topic
            and not name.startswith(own)
            and node.count_publishers(name)
        ]
        if count := node.count_publishers(topic):
            return f'{count} publisher(s) are there but send nothing'
        if not others:
            return (
                'nobody publishes it, nor any other image topic; is the camera running, with the '
                'same ROS_DOMAIN_ID?'
            )
        shown = ', '.join(others[:12]) + (', ...' if len(others) > 12 else '')
        return f'nobody publishes it; image topics that exist: {shown}'

    def _watch_engine(self, worker: Worker) -> None:
        faults = [] if worker.pipeline is None else worker.pipeline.faults()
        text = '; '.join(fault.reason for fault in faults)
        remedy = '; '.join(dict.fromkeys(fault.remedy for fault in faults if fault.remedy))
        self._warn('engine', bool(faults), text, remedy)

    def _watch_memory(self, worker: Worker) -> None:
        self._warn(
            'learning',
            worker.learning,
            'learning what is normal; no results meanwhile',
            'call ~/learn_normal with false when enough was seen',
        )
        if worker.learning or worker.pipeline is None:
            self.health.clear('memory')
            self.health.clear('site')
            return
        memory = loading.memory_of(worker.pipeline)
        why = loading.unlearnt(worker.pipeline)
        text, _, remedy = why.partition('; ')
        file = worker.settings.memory_file
        untaught = memory is not None and not memory.size
        absent = untaught and bool(file) and not os.path.exists(os.path.expanduser(file))
        text = f'no results: {text}' if why else 'not taught'
        text += f' and memory_file {file!r} does not exist' if absent else ''
        how = '~/learn_normal: with true, then drive where all is normal, then with false'
        self._error('memory', bool(why) or absent, text, f'{remedy} ({how})'.strip())
        doubt = '' if memory is None or why or absent else memory.doubt
        if memory is not None and not memory.size and memory.judges_untaught:
            doubt = 'not taught: judges as without a memory of the site; teach it'
        text, _, remedy = doubt.partition('; ')
        self._warn('site', bool(doubt), text, f'{remedy} ({how})')

    def _watch_alarms(self, worker: Worker) -> None:
        alarms, settings = worker.publisher.alarms, worker.settings
        text, remedy = alarms.problem, HOW
        if alarms.measuring is not None:
            text = 'measuring normal operation'
            remedy = 'call ~/calibrate with false when enough was seen'
        self._warn('budget', bool(text), text, remedy)
        count, hours, broken = alarms.rate(settings)
        self._warn(
            'alarms',
            broken and alarms.verdict is not None,
            f'{count} alarms in the last {hours:.2f} h, the budget is '
            f'{settings.alarms_per_hour:g} an hour',
            f'look at what it finds; if all of it is normal here, measure anew ({HOW})',
        )

    def _watch_results(self, stream: CameraStream, worker: Worker, now: float) -> None:
        settings = worker.settings
        owed = now - stream.owed_since if stream.owed_since else 0.0
        limit = max(settings.stale_after, MISSED * stream.typical_delay() or worker.patience)
        if stream.rate_limit:
            limit += MISSED / stream.rate_limit
        wanted = worker.enabled and (worker.learning or worker.outputs[stream.name].wants())
        self._error(
            'result',
            owed > limit and bool(wanted) and not worker.doing,
            f'images arrive, but there has been no result for {owed:.0f} s',
            'see the status of the pipeline',
            stream.name,
        )

    def _watch_drops(self, stream: CameraStream, settings: Settings) -> None:
        counts = self._counts.setdefault(stream.name, deque(maxlen=DROP_WINDOW + 1))
        now = (stream.counters.received, stream.counters.dropped)
        if counts and now[0] < counts[-1][0]:
            counts.clear()  # ~/reset
        counts.append(now)
        received, dropped = now[0] - counts[0][0], now[1] - counts[0][1]
        asked = float(received)  # frames that max_rate lets through
        if stream.rate_limit:
            asked = min(received, stream.rate_limit * (len(counts) - 1))
        self._warn(
            'drops',
            received >= DROP_FRAMES and received - dropped < asked / 2,
            f'{dropped / max(received, 1):.0%} of the frames are dropped: the camera sends '
            f'{rate(stream.arrivals):.1f} Hz, {rate(stream.finished):.1f} Hz are processed',
            'the newest is always taken; set max_rate, or use a faster profile, engine or device',
            stream.name,
        )

    def _hold(self, level: Level, key: str, holds: bool, *issue: Any) -> None:
        """Raise an issue (text, remedy, camera) while it holds, clear it when it is over."""
        if holds:
            self.health.put(level, key, *issue)
        else:
            self.health.clear(key, *issue[2:])

    _warn = functools.partialmethod(_hold, Level.WARN)
    _error = functools.partialmethod(_hold, Level.ERROR)
