# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What /diagnostics says once a second: one status for the node and one for each camera.

`level` is OK, WARN (works, but somebody should look), ERROR (no result comes out, or none to
trust) or STALE (inactive). The levels come from `health`; here they become messages, with the
numbers.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from ood_perception.ros import loading
from ood_perception.ros.alarms import Alarms
from ood_perception.ros.camera_stream import CameraStream, rate
from ood_perception.ros.health import Health, Level
from ood_perception.ros.settings import Settings

if TYPE_CHECKING:
    from ood_perception.pipeline import Pipeline

COUNTED = ('received', 'processed', 'dropped', 'discarded', 'bad', 'failed')


def node_status(
    node: str, state: str, health: Health, doing: str, values: Mapping[str, Any]
) -> DiagnosticStatus:
    """Describe the node; `doing` is what keeps it from working ('loading ...'), or ''."""
    level, text = health.verdict()
    if doing and level < Level.ERROR:
        level, text = Level.WARN, doing
    elif state != 'active' and level < Level.ERROR:
        text = state if level == Level.OK else f'{state}; {text}'
        level = Level.STALE
    shown = {'state': state, **values, **process_values(), 'last_error': health.last_error()}
    return status(f'{node}: pipeline', level, text, 'ood_perception', shown)


def pipeline_values(pipeline: Pipeline) -> dict[str, str]:
    """Engine that runs, device, licence of the weights and whether the memory of normal stands."""
    engine = pipeline.engine
    values = {'engine': engine.name or 'not chosen yet', 'engine_choice': engine.why}
    if faults := pipeline.faults():
        values['engine_fault'] = '; '.join(str(fault) for fault in faults)
    values |= device_values(pipeline.device)
    values['licence'] = pipeline.profile.licence
    if (memory := loading.memory_of(pipeline)) is not None:
        values['memory_of_normal'] = memory.problem or f'learnt from {memory.frames} frames'
    return values | ({'last_note': pipeline.notes[-1]} if pipeline.notes else {})


def alarm_values(alarms: Alarms, settings: Settings) -> dict[str, str]:
    """Threshold in use, alarms of the last hour, and what is known of the budget."""
    count, hours, _ = alarms.rate(settings)
    values = {
        'detection_threshold': f'{settings.detection_threshold:.4f}',
        'alarms': f'{count} in the last {hours:.2f} h',
    }
    if settings.alarms_per_hour:
        values['alarm_budget'] = alarms.verdict.text if alarms.verdict else alarms.problem
    return values


def camera_status(
    node: str, stream: CameraStream, topic: str, active: bool, health: Health
) -> DiagnosticStatus:
    """Describe one camera: rates, drops, latency per stage, last error."""
    counters = stream.counters
    age = time.monotonic() - stream.last_received if stream.last_received else None
    level, text = health.verdict(stream.name) if active else (Level.STALE, 'inactive')
    values: dict[str, Any] = {
        'topic': topic,
        'fps_in': f'{rate(stream.arrivals):.2f}',
        'fps': f'{rate(stream.finished):.2f}',
        **{name: getattr(counters, name) for name in COUNTED},
        'stamp_jumps': counters.jumps,
        'stamp_jitters': counters.jitters,
        **({'frames_without_depth': counters.no_depth} if stream.depth is not None else {}),
        'seconds_since_image': 'never' if age is None else f'{age:.2f}',
    }
    if stream.detect_rate:
        values |= {
            'detections_per_second': f'{rate(stream.finished):.2f}',
            'outputs_per_second': f'{rate(stream.published):.2f}',
            'propagated': counters.propagated,
        }
    for stage, (median, late) in stream.percentiles().items():
        values[f'{stage}_ms_p50'] = f'{median:.2f}'
        values[f'{stage}_ms_p95'] = f'{late:.2f}'
    values['last_error'] = health.last_error(stream.name)
    hardware = stream.newest[0].header.frame_id if stream.newest else ''
    return status(f'{node}: {stream.label}', level, text, hardware or stream.label, values)


def process_values() -> dict[str, Any]:
    """Memory in MB, threads and open files of this process (Linux; elsewhere what there is)."""
    values: dict[str, Any] = {
        'memory_peak_mb': f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}',
        'threads': threading.active_count(),
    }
    try:
        with open('/proc/self/statm', encoding='ascii') as file:
            pages = int(file.read().split()[1])
        values['memory_mb'] = f'{pages * os.sysconf("SC_PAGE_SIZE") / 2**20:.0f}'
        values['threads'] = len(os.listdir('/proc/self/task'))
        values['open_files'] = len(os.listdir('/proc/self/fd'))
    except OSError:
        pass
    return values


def device_values(device: Any) -> dict[str, str]:
    """Memory in MB that torch holds on a CUDA device; nothing for the CPU."""
    import torch

    if getattr(device, 'type', 'cpu') != 'cuda':
        return {'device': str(device)}
    return {
        'device': f'{device} {torch.cuda.get_device_name(device)}',
        'device_memory_mb': f'{torch.cuda.memory_allocated(device) / 2**20:.0f}',
        'device_memory_reserved_mb': f'{torch.cuda.memory_reserved(device) / 2**20:.0f}',
    }


def status(
    name: str, level: Level, text: str, hardware: str, values: Mapping[str, Any]
) -> DiagnosticStatus:
    """Make a message of a status; its values become text."""
    return DiagnosticStatus(
        level=bytes([level]),
        name=name,
        message=text,
        hardware_id=hardware,
        values=[KeyValue(key=str(k), value=str(v)) for k, v in values.items()],
    )
