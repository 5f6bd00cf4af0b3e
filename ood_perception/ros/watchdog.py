# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What shows in silence only, looked for once a second: no image, no result, a twin of this node.

Each rule raises an issue of the node's `Health` while it holds and clears it when it is over.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Any

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

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')


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
        self._hold(
            Level.WARN,
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
        self._hold(
            Level.ERROR,
            'no pipeline',
            not worker.doing and not (worker.alive and worker.pipeline is not None),
            'active without a pipeline: nothing is looked at',
            'deactivate, clean up and configure the node anew',
        )
        self._hold(
            Level.WARN,
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
        self._hold(
            Level.ERROR,
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
        self._hold(Level.ERROR, 'input', bool(mismatch), mismatch, camera=camera)
        names = publishers(node, topic) if node.count_publishers(topic) > 1 else []
        self._hold(
            Level.WARN,
            'publishers',
            len(names) > 1,
            f'{topic} has {len(names)} publishers, {", ".join(names)}: their frames mix',
            'stop all but one, or remap them',
            camera,
        )
        now = time.monotonic()
        age = now - stream.last_received if stream.last_received else None
        limit = max(settings.stale_after, MISSED * stream.usual_interval())
        if age is None:
            text = f'no image on {topic} yet'
        else:
            text = f'no image on {topic} for {age:.1f} s' if age > limit else ''
        if text:
            self._silence(node, stream, topic, text, mismatch, settings.stale_after)
        else:
            self._silent.discard(camera)
            self.health.clear('silent', camera)
        self._watch_results(stream, worker, now)
        self._watch_drops(stream, settings)

    def _silence(
        self,
        node: Any,
        stream: CameraStream,
        topic: str,
        text: str,
        mismatch: str,
        patience: float,
    ) -> None:
        """Show it at once, and say once, when nothing came for `patience` s, what there is."""
        self.health.warn('silent', text, camera=stream.name, quiet=True)
        waited = time.monotonic() - max(stream.last_received, stream.subscribed_at)
        if mismatch or stream.name in self._silent or waited < patience:
            return
        self._silent.add(stream.name)
        self.health.report('warn', f'{text}: {self._instead(node, topic)}')

    def _instead(self, node: Any, topic: str) -> str:
        publishers = node.count_publishers(topic)
        own = node.get_fully_qualified_name() + '/'
        others = [
            f'{name} ({kinds[0].rpartition("/")[2]})'
            for name, kinds in node.get_topic_names_and_types()
            if kinds[0] in IMAGE_TYPES
            and name != topic
            and not name.startswith(own)
            and node.count_publishers(name)
        ]
        if publishers:
            return f'{publishers} publisher(s) are there but send nothing'
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
        self._hold(Level.WARN, 'engine', bool(faults), text, remedy)

    def _watch_memory(self, worker: Worker) -> None:
        self._hold(
            Level.WARN,
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
        self._hold(Level.ERROR, 'memory', bool(why) or absent, text, f'{remedy} ({how})'.strip())
        doubt = '' if memory is None or why or absent else memory.doubt
        if memory is not None and not memory.size and memory.judges_untaught:
            doubt = 'not taught: judges as without a memory of the site; teach it'
        text, _, remedy = doubt.partition('; ')
        self._hold(Level.WARN, 'site', bool(doubt), text, f'{remedy} ({how})')

    def _watch_alarms(self, worker: Worker) -> None:
        alarms, settings = worker.publisher.alarms, worker.settings
        self._hold(
            Level.WARN,
            'budget',
            bool(alarms.problem) or alarms.measuring is not None,
            'measuring normal operation' if alarms.measuring is not None else alarms.problem,
            'call ~/calibrate with false when enough was seen'
            if alarms.measuring is not None
            else HOW,
        )
        count, hours, broken = alarms.rate(settings)
        self._hold(
            Level.WARN,
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
        self._hold(
            Level.ERROR,
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
        self._hold(
            Level.WARN,
            'drops',
            received >= DROP_FRAMES and received - dropped < asked / 2,
            f'{dropped / max(received, 1):.0%} of the frames are dropped: the camera sends '
            f'{rate(stream.arrivals):.1f} Hz, {rate(stream.finished):.1f} Hz are processed',
            'the newest is always taken; set max_rate, or use a faster profile, engine or device',
            stream.name,
        )

    def _hold(
        self,
        level: Level,
        key: str,
        holds: bool,
        text: str,
        remedy: str = '',
        camera: str | None = None,
    ) -> None:
        if holds:
            self.health.put(level, key, text, remedy, camera)
        else:
            self.health.clear(key, camera)
