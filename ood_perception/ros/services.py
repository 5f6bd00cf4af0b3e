# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The node's services; `SERVICES` lists them."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from std_srvs.srv import SetBool, Trigger

from ood_perception import site_folder
from ood_perception.alarm_budget import Peaks
from ood_perception.detections import rows
from ood_perception.drawing import draw
from ood_perception.frames.decode import decode
from ood_perception.frames.picture import encode
from ood_perception.ros import detections, loading

SERVICES: dict[str, tuple[Any, str]] = {
    'enable': (
        SetBool,
        'false: discard frames and compute nothing, true: go on. Quicker than the lifecycle.',
    ),
    'reset': (
        Trigger,
        'Forget tracks, streaming clusters and counters of all cameras, not what was learnt.',
    ),
    'learn_normal': (
        SetBool,
        'true: take what the cameras now see as normal, false: stop and, with the parameter '
        'memory_file, save it. Needs a profile whose score learns on site (compact_site).',
    ),
    'calibrate': (
        SetBool,
        'true: measure how sure the node is of what it finds in normal operation, false: stop, '
        'set the threshold by alarms_per_hour and, with the parameter alarms_file, save it.',
    ),
    'accept': (
        Trigger,
        'The object that the parameter object_id names is normal here: never alarm for its like '
        'again. Kept in site_folder; taken back with `ood site undo`.',
    ),
    'report': (
        Trigger,
        'The object that the parameter object_id names was a real one. Kept in site_folder, for '
        '`ood train uem`.',
    ),
    'save_snapshot': (
        Trigger,
        'Write the newest frame of each camera with all outputs and parameters into '
        'snapshot_folder; the answer names the folders.',
    ),
}
"""Service below ``~/``: type and meaning."""


class Services:
    """Offer the services of a node."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._before = b''  # the memory that learning began to replace
        for name, (kind, _) in SERVICES.items():
            node.create_service(kind, f'~/{name}', self._guard(getattr(self, name)))

    def _guard(self, handler: Any) -> Any:
        """An exception would end the node's executor; it becomes the answer instead."""

        def answer(request: Any, response: Any) -> Any:
            try:
                response.success, response.message = handler(request)
            except Exception as error:
                response.success = False
                response.message = f'{type(error).__name__}: {error}'
                self._node.report('error', f'service {handler.__name__}: {response.message}')
            return response

        return answer

    def enable(self, request: Any) -> tuple[bool, str]:
        """Go on or pause."""
        self._node.enabled = bool(request.data)
        if self._node.worker is not None:
            self._node.worker.enabled = self._node.enabled
        return True, 'enabled' if request.data else 'disabled: frames are discarded'

    def reset(self, request: Any) -> tuple[bool, str]:
        """Forget the past of all cameras."""
        worker = self._worker()

        def reset() -> None:
            worker.pipeline.reset()
            for stream in worker.mailbox.streams:
                stream.reset()
                self._node.health.forget(stream.name)

        worker.call(reset)
        return True, f'{len(worker.mailbox.streams)} camera(s) start afresh'

    def learn_normal(self, request: Any) -> tuple[bool, str]:
        """Start or stop learning what is normal here."""
        if loading.memory_of(self._worker().pipeline) is None:
            name = self._node.settings.profile
            return False, f'the score of profile {name!r} does not learn; use compact_site'
        return self._call(self._start_learning if request.data else self._stop_learning)

    def _start_learning(self, worker: Any) -> tuple[bool, str]:
        if not worker.learning:
            self._before = loading.learnt(worker.pipeline)
        worker.learning = True
        worker.pipeline.score.start()
        return True, 'learning: drive where nothing is unknown, then call with false'

    def _stop_learning(self, worker: Any) -> tuple[bool, str]:
        score = worker.pipeline.score
        was_learning, worker.learning = worker.learning, False
        score.stop()
        if not was_learning:
            return False, 'not learning; call with true first'
        if poor := score.poor:
            score.forget()
            if self._before:
                loading.remember(score, self._before)
            return False, f'{poor}; what was known before stays'
        worker.publisher.alarms.forget()
        self._node.apply_budget()
        file, how = self._node.settings.memory_file, 'kept in memory only, as memory_file is empty'
        if file:
            path = Path(file).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            score.save(str(path))
            how = f'saved to {path}'
        # into the file they do not go: what was accepted can be taken back
        loading.accept_all(worker.pipeline, self._node.settings.site_folder)
        return True, f'learnt; {how}'

    def accept(self, request: Any) -> tuple[bool, str]:
        """Take an object as normal here."""
        memory = loading.memory_of(self._worker().pipeline)
        if memory is None or not memory.size or memory.problem:
            return False, 'there is no memory of the site to take it in: teach it first'
        return self._call(lambda worker: self._keep_object(worker, 'accepted'))

    def report(self, request: Any) -> tuple[bool, str]:
        """Keep an object that was a real one."""
        return self._call(lambda worker: self._keep_object(worker, 'reported'))

    def _keep_object(self, worker: Any, kind: str) -> tuple[bool, str]:
        settings, seen = self._node.settings, []
        if not settings.site_folder:
            return False, 'the parameter site_folder is empty'
        for stream in worker.mailbox.streams:
            message, result = stream.newest or (None, None)
            if result is None or result.ids is None:
                continue
            for number in map(int, result.ids):
                seen.append(f'{stream.name}/{number}' if stream.name else str(number))
                if settings.object_id not in (seen[-1], str(number)):
                    continue
                image = decode(message, sys.maxsize, intensity=stream.intensity)
                mask = result.instances == number
                if kind == 'accepted':
                    loading.accept(worker.pipeline, image, mask)
                folder = Path(settings.site_folder).expanduser()
                return True, site_folder.keep(folder, kind, stream.name, number, image, mask)
        there = ', '.join(seen) or 'nothing'
        raise ValueError(f'object_id: {settings.object_id!r} is not in sight, {there} is')

    def calibrate(self, request: Any) -> tuple[bool, str]:
        """Start or stop measuring normal operation for the budget of alarms."""
        profile = self._worker().pipeline.profile
        if not (profile.prompts.name and profile.tracking.enabled):
            return False, f'profile {profile.name!r} does not track objects'
        return self._call(self._start_measuring if request.data else self._stop_measuring)

    def _start_measuring(self, worker: Any) -> tuple[bool, str]:
        worker.publisher.alarms.measuring = Peaks()
        return True, 'measuring: operate where nothing is unknown, then call with false'

    def _stop_measuring(self, worker: Any) -> tuple[bool, str]:
        alarms, settings = worker.publisher.alarms, self._node.settings
        kept = alarms.stop(settings.alarms_file, worker.pipeline.identity)
        self._node.apply_budget()
        if alarms.verdict is None:
            return True, f'measured; {kept}; now set alarms_per_hour'
        threshold = alarms.verdict.threshold
        return True, f'{alarms.verdict.text}; detection threshold {threshold:.4f}; {kept}'

    def save_snapshot(self, request: Any) -> tuple[bool, str]:
        """Write the newest frame of each camera."""
        return self._call(self._save_snapshots)

    def _save_snapshots(self, worker: Any) -> tuple[bool, str]:
        seen = [stream for stream in worker.mailbox.streams if stream.newest is not None]
        if not seen:
            return False, 'no frame has been processed yet (does anybody subscribe to an output?)'
        return True, '\n'.join(str(self._save_snapshot(worker, stream)) for stream in seen)

    def _save_snapshot(self, worker: Any, stream: Any) -> Path:
        """Write a frame, all outputs and parameters, for a bug report, into a new folder."""
        import torch

        message, result = stream.newest
        image = decode(message, sys.maxsize, intensity=stream.intensity)
        missing = [n for n in ('score', 'heatmap', 'instances') if getattr(result, n) is None]
        if missing or result.semantic is None:
            # A stream of its own, so that the camera's tracks do not see a frame twice.
            (full,) = worker.pipeline([image], streams=['snapshot'])
            worker.pipeline.reset('snapshot')
            absent = [f.name for f in dataclasses.fields(full) if getattr(result, f.name) is None]
            result = dataclasses.replace(result, **{name: getattr(full, name) for name in absent})
        stamp, camera = message.header.stamp, stream.name or 'camera'
        name = f'{time.strftime("%Y%m%d-%H%M%S")}_{camera}_{stamp.sec}.{stamp.nanosec:09d}'
        target = Path(self._node.settings.snapshot_folder).expanduser() / name
        number = 1
        while target.exists():
            number += 1
            target = target.with_name(f'{name}_{number}')
        target.mkdir(parents=True)
        found = rows(result)
        text = detections.to_json(message.header, stream.name, image.shape[:2], found)
        about = {
            'frame': json.loads(text),
            'timings_ms': result.timings,
            'versions': {
                'python': platform.python_version(),
                'machine': platform.machine(),
                'torch': torch.__version__,
                'opencv': cv2.__version__,
                'numpy': np.__version__,
            },
            'camera': stream.name,
            'computed_for_the_snapshot': missing,
            'parameters': self._node.parameter_values(),
            'counters': dataclasses.asdict(stream.counters),
            'last_error': self._node.health.last_error(stream.name),
            'profile': worker.pipeline.profile.to_dict(),
        }
        text = json.dumps(about, indent=2, default=str)
        (target / 'snapshot.json').write_text(text, encoding='utf-8')
        labels = [item.label for item in found]
        overlay = draw(image, result.heatmap, result.instances, result.boxes, labels)
        maps = {name: getattr(result, name) for name in ('heatmap', 'instances', 'semantic')}
        for name, pixels in {'image': image, 'overlay': overlay, **maps}.items():
            if pixels is not None:
                (target / f'{name}.png').write_bytes(encode(pixels, '.png'))
        if result.score is not None:
            np.save(target / 'score.npy', result.score, allow_pickle=False)
        return target

    def _worker(self) -> Any:
        worker = self._node.worker
        if worker is None or worker.pipeline is None:
            raise RuntimeError('the node is not configured')
        return worker

    def _call(self, function: Any) -> tuple[bool, str]:
        worker = self._worker()
        answer: tuple[bool, str] = worker.call(lambda: function(worker))
        return answer
