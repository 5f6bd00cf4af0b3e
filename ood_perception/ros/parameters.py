# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Declaring, reading and checking the node's parameters, which `settings` describes."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)

from ood_perception.ros.settings import (
    LIVE,
    START,
    UNCONFIGURED,
    CameraSettings,
    Settings,
    constraint,
    default,
    fields,
)


def describe(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    """Descriptor with text, range and when the parameter may change."""
    meta = field.metadata
    when = {LIVE: '', UNCONFIGURED: ' Changes while unconfigured only.', START: ''}
    descriptor = ParameterDescriptor(
        description=meta['text'] + (f' [{meta["unit"]}]' if meta['unit'] else ''),
        additional_constraints=constraint(field) + when[meta['change']],
        read_only=meta['change'] == START,
    )
    low, high = meta['low'], meta['high']
    if low is not None and isinstance(default(field), int):
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
    elif low is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(low), to_value=float(high), step=0.0)
        ]
    return descriptor


def declare(node: Any) -> Settings:
    """
    Declare every parameter on a node and read the values it was started with.

    Raises:
        rclpy's ParameterException family: a value given at the start has the wrong type or lies
        outside the range.

    """
    for name, field in fields(Settings).items():
        node.declare_parameter(name, default(field), describe(field))
    return read(node)


def declare_camera(node: Any, camera: str) -> None:
    """Declare the parameters ``<camera>.<field>`` unless they are declared already."""
    for name, field in fields(CameraSettings).items():
        if not node.has_parameter(f'{camera}.{name}'):
            node.declare_parameter(f'{camera}.{name}', default(field), describe(field))


def read(node: Any) -> Settings:
    """Read all parameters of a node."""
    return Settings(**{name: plain(node.get_parameter(name).value) for name in fields(Settings)})


def read_camera(node: Any, camera: str, settings: Settings) -> CameraSettings:
    """Read a camera's parameters with 'as for all' resolved. The unnamed camera has none."""
    if not camera:
        return CameraSettings(settings.image_transport, settings.input_qos, settings.max_rate)
    values = {
        name: node.get_parameter(f'{camera}.{name}').value for name in fields(CameraSettings)
    }
    rate = values['max_rate']
    return CameraSettings(
        values['image_transport'] or settings.image_transport,
        values['input_qos'] or settings.input_qos,
        settings.max_rate if rate < 0 else rate,
    )


def check(settings: Settings) -> None:
    """
    Check what ranges cannot say, before anything is built from the settings.

    Raises:
        ValueError: starts with the parameter's name and quotes the value it got.

    """
    for name, field in fields(Settings).items():
        if problem := _problem(name, field, getattr(settings, name)):
            raise ValueError(problem)
    names = settings.camera_names()
    if len(set(names)) != len(names):
        raise ValueError(f'cameras: names must differ, got {names}')


def check_changes(changes: Iterable[Any], configured: bool) -> SetParametersResult:
    """
    Judge a set of parameter changes (rclpy Parameters) before they happen.

    Args:
        changes: the rclpy Parameters that somebody wants to set.
        configured: whether the node has been configured.

    """
    known = fields(Settings)
    for parameter in changes:
        field = known.get(parameter.name) or fields(CameraSettings).get(
            parameter.name.rpartition('.')[2]
        )
        if field is None or parameter.name.startswith('qos_overrides.'):
            continue
        if configured and field.metadata['change'] == UNCONFIGURED:
            reason = f'{parameter.name} can change only while the node is unconfigured (cleanup)'
            return SetParametersResult(successful=False, reason=reason)
        if problem := _problem(parameter.name, field, plain(parameter.value)):
            return SetParametersResult(successful=False, reason=problem)
    return SetParametersResult(successful=True)


def plain(value: Any) -> Any:
    """Turn a parameter's value into plain Python: arrays become lists."""
    return value if isinstance(value, (str, bool, int, float)) or value is None else list(value)


_CAMERA = re.compile(r'[A-Za-z][A-Za-z0-9_]*')


def _problem(name: str, field: dataclasses.Field[Any], value: Any) -> str:
    """Empty when the value is right, else what is wrong with it."""
    choices = field.metadata['choices']
    if choices and value not in choices:
        return f'{name}: expected one of {", ".join(c or repr(c) for c in choices)}, got {value!r}'
    if isinstance(value, float) and not math.isfinite(value):
        return f'{name}: expected a number, got {value}'
    if name == 'cameras':
        for camera in value:
            if camera and not _CAMERA.fullmatch(camera):
                return f'cameras: expected letters, digits and _, got {camera!r}'
    if name == 'warm_up_size' and (len(value) != 2 or not all(16 <= v <= 16384 for v in value)):
        return f'warm_up_size: expected width and height of 16 to 16384 px, got {value}'
    if name == 'intensity_range' and not _is_range(value):
        return f'intensity_range: expected low < high, or [0, 0] for automatic, got {value}'
    if name == 'device' and not re.fullmatch(r'auto|cpu|cuda(:\d+)?', value):
        return f'device: expected auto, cpu, cuda or cuda:N, got {value!r}'
    if name == 'profile' and not value.strip():
        return 'profile: expected a name or a path, got an empty text'
    if name == 'memory_file' and value and Path(value).expanduser().is_dir():
        return f'memory_file: expected a file, got the folder {value!r}'
    return ''


def _is_range(value: Any) -> bool:
    """Whether a value is [0, 0], or two finite numbers in ascending order."""
    if len(value) != 2 or not all(math.isfinite(v) for v in value):
        return False
    return value[0] < value[1] or not any(value)
