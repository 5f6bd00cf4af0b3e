# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What /diagnostics says once a second: one status for the node and one for each camera.

`level` is OK, WARN (works, but somebody should look: no new frame, most frames dropped, settings
that do not fit), ERROR (no result comes out) or STALE (inactive).
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ood_perception.ros.camera_stream import CameraStream, rate

ERROR_SECONDS = 5.0
"""A problem of a single frame is reported for this long."""


def array(stamp: Any, statuses: Iterable[DiagnosticStatus]) -> DiagnosticArray:
    """Put statuses into one message with the stamp (builtin_interfaces/Time) `stamp`."""
    message = DiagnosticArray(status=list(statuses))
    message.header.stamp = stamp
    return message


def node_status(
    node: str,
    state: str,
    error: str,
    warnings: list[str],
    values: Mapping[str, Any],
) -> DiagnosticStatus:
    """
    Describe the node as a whole.

    Args:
        node: name of the node.
        state: lifecycle state.
        error: why it does not work, '' when it does.
        warnings: what somebody should look at.
        values: further values to show.

    """
    if error:
        level, text = DiagnosticStatus.ERROR, error
    elif state != 'active':
        level, text = DiagnosticStatus.STALE, state
    elif warnings:
        level, text = DiagnosticStatus.WARN, '; '.join(warnings)
    else:
        level, text = DiagnosticStatus.OK, 'running'
    shown = {'state': state, **values, **process_values(), 'last_error': error}
    return _status(f'{node}: pipeline', level, text, 'ood_perception', shown)


def camera_status(
    node: str, stream: CameraStream, topic: str, active: bool, stale_after: float
) -> DiagnosticStatus:
    """
    Describe one camera: rates, drops, latency per stage, last error.

    Args:
        node: name of the node.
        stream: the camera.
        topic: resolved name of its image topic.
        active: whether the node is active.
        stale_after: seconds without a frame after which the camera is reported.

    """
    now, counters = time.monotonic(), stream.counters
    age = now - stream.last_received if stream.last_received else None
    recent_error = stream.last_error and now - stream.last_error_time < ERROR_SECONDS
    if not active:
        level, text = DiagnosticStatus.STALE, 'inactive'
    elif stream.trouble:
        level, text = DiagnosticStatus.ERROR, stream.trouble
    elif recent_error:
        level, text = DiagnosticStatus.ERROR, stream.last_error
    elif age is None:
        level, text = DiagnosticStatus.WARN, f'no image on {topic} yet'
    elif age > stale_after:
        level, text = DiagnosticStatus.WARN, f'no image on {topic} for {age:.1f} s'
    elif stream.warnings:
        level, text = DiagnosticStatus.WARN, '; '.join(stream.warnings.values())
    else:
        level, text = DiagnosticStatus.OK, 'running'
    values: dict[str, Any] = {
        'topic': topic,
        'fps_in': f'{rate(stream.arrivals):.2f}',
        'fps': f'{rate(stream.finished):.2f}',
        'received': counters.received,
        'processed': counters.processed,
        'dropped': counters.dropped,
        'unwanted': counters.unwanted,
        'bad': counters.bad,
        'failed': counters.failed,
        'stamp_jumps': counters.jumps,
        'stamp_jitters': counters.jitters,
        **({'frames_without_depth': counters.no_depth} if stream.depth is not None else {}),
        'seconds_since_image': 'never' if age is None else f'{age:.2f}',
    }
    for stage, (median, late) in stream.percentiles().items():
        values[f'{stage}_ms_p50'] = f'{median:.2f}'
        values[f'{stage}_ms_p95'] = f'{late:.2f}'
    values['last_error'] = stream.last_error
    hardware = stream.newest[0].header.frame_id if stream.newest else ''
    return _status(f'{node}: {stream.label}', level, text, hardware or stream.label, values)


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


def _status(
    name: str, level: bytes, text: str, hardware: str, values: Mapping[str, Any]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        message=text,
        hardware_id=hardware,
        values=[KeyValue(key=str(k), value=str(v)) for k, v in values.items()],
    )
