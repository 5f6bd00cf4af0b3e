# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Declaring, reading, checking and changing the node's parameters, which `settings` describes.

They are taken as people write them: integers do for doubles, and a wrong name is answered with
hints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter

from ood_perception.frames import zones
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

RCLPY_PARAMETERS = ('use_sim_time', 'start_type_description_service')
QOS_OVERRIDES = 'qos_overrides.'

_KINDS = {
    bool: 'true or false,', int: 'an integer', float: 'a number', str: 'a text', list: 'a list',
}  # fmt: skip


class ParameterNode(LifecycleNode):
    """A lifecycle node that takes parameters as people write them."""

    settings: Settings  # the parameters as last read

    def watch_parameters(self, configured: Callable[[], bool], apply: Callable[[], None]) -> None:
        """Check every change before it is made, and call `apply` afterwards."""
        humble = not hasattr(self, 'add_post_set_parameters_callback')

        def checked(changes: list[Any]) -> SetParametersResult:
            verdict = check_changes(changes, configured())
            if verdict.successful and humble and self.executor is not None:
                self.executor.create_task(apply)  # it has no callback for afterwards
            return verdict

        self.add_on_set_parameters_callback(checked)
        if not humble:
            self.add_post_set_parameters_callback(lambda changed: apply())

    def parameter_values(self) -> dict[str, Any]:
        """Values of all parameters by name."""
        found = self.get_parameters_by_prefix('')
        return {name: plain(found[name].value) for name in sorted(found)}

    def set_parameters(self, parameter_list: list[Any]) -> list[SetParametersResult]:
        """Set parameters one by one; integers do for doubles, and what is set already may stay."""
        return [self.set_parameters_atomically([parameter]) for parameter in parameter_list]

    def set_parameters_atomically(self, parameter_list: list[Any]) -> SetParametersResult:
        """Set all or none; integers do for doubles, and what is set already may stay."""
        wanted = changes(self, parameter_list)
        if not wanted:
            return SetParametersResult(successful=True)
        # rclpy would refuse them as well, but names none.
        absent = [p.name for p in wanted if not self.has_parameter(p.name)]
        if absent:
            lines = unknown(absent, self.settings.camera_names())
            reason = '; '.join(lines) or f'{", ".join(absent)}: not before configure'
            return SetParametersResult(successful=False, reason=reason)
        return super().set_parameters_atomically(wanted)


def describe(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    """Descriptor with text, range and when the parameter may change."""
    meta = field.metadata
    when = {LIVE: '', UNCONFIGURED: ' Changes while unconfigured only.', START: ''}
    descriptor = ParameterDescriptor(
        description=meta['text'] + (f' [{meta["unit"]}]' if meta['unit'] else ''),
        additional_constraints=constraint(field) + when[meta['change']],
        read_only=meta['change'] == START,
    )
    if meta['within'] and isinstance(default(field), int):
        low, high = map(int, meta['within'])
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high)]
    elif meta['within']:
        least, most = map(float, meta['within'])
        descriptor.floating_point_range = [FloatingPointRange(from_value=least, to_value=most)]
    return descriptor


def take_overrides(node: Any) -> dict[str, Any]:
    """
    Values that a node was started with, by parameter name.

    The node must have been made with ``automatically_declare_parameters_from_overrides``, which is
    how rclpy tells them; what it declared is undeclared again, but for rclpy's own parameters.
    """
    found = {}
    for name, parameter in node.get_parameters_by_prefix('').items():
        if name not in RCLPY_PARAMETERS and not name.startswith(QOS_OVERRIDES):
            found[name] = plain(parameter.value)
            node.undeclare_parameter(name)
    return found


def declare(node: Any, overrides: Mapping[str, Any]) -> Settings:
    """
    Declare every parameter on a node and read the values it was started with.

    Raises:
        ValueError: a value given at the start has the wrong type.
        rclpy's ParameterException family: it lies outside the range.
    """
    for name, field in fields(Settings).items():
        _declare(node, name, field, overrides)
    return read(node)


def declare_camera(node: Any, camera: str, overrides: Mapping[str, Any]) -> None:
    """Declare the parameters ``<camera>.<field>`` unless they are declared already."""
    for name, field in fields(CameraSettings).items():
        if not node.has_parameter(f'{camera}.{name}'):
            _declare(node, f'{camera}.{name}', field, overrides)


def _declare(
    node: Any, name: str, field: dataclasses.Field[Any], overrides: Mapping[str, Any]
) -> None:
    value = converted(name, field, overrides[name]) if name in overrides else default(field)
    node.declare_parameter(name, value, describe(field), ignore_override=True)


def converted(name: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """
    Turn a value into the type of a parameter where that loses nothing: 5 into 5.0.

    Raises:
        ValueError: another type; the message says what to write.
    """
    wanted = default(field)
    if isinstance(wanted, float) and type(value) is int:
        return float(value)
    if type(wanted) is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(wanted, list) and (value is None or (isinstance(value, list) and not value)):
        return wanted
    if isinstance(wanted, list) and isinstance(value, list) and isinstance(wanted[0], float):
        value = [float(v) if type(v) is int else v for v in value]
    if type(value) is type(wanted) and (
        not isinstance(value, list) or isinstance(value[0], type(wanted[0]))
    ):
        return value
    example = str(wanted).lower() if isinstance(wanted, bool) else repr(wanted)  # as YAML does
    raise ValueError(f'{name}: expected {_KINDS[type(wanted)]} such as {example}, got {value!r}')


def unknown(overrides: Iterable[str], cameras: Iterable[str]) -> list[str]:
    """Say which start parameters no one reads, a line each, with the nearest name there is."""
    own = list(fields(Settings))
    names = [c for c in cameras if c]
    known = own + [f'{camera}.{name}' for camera in names for name in fields(CameraSettings)]
    lines = []
    for name in sorted(set(overrides) - set(known)):
        camera, dot, rest = name.partition('.')
        if dot and rest in fields(CameraSettings) and camera not in names:
            have = ', '.join(names) or 'none'
            lines.append(f'parameter {name} is ignored: no camera is named {camera!r} ({have})')
            continue
        text = f'parameter {name} is ignored: there is none of that name'
        near = [field for field in own if name in field][:3]
        near = near or difflib.get_close_matches(name, known, 1)
        near = near or [field for field in own if field in name][:1]
        text += f'; did you mean {" or ".join(near)}?' if near else ''
        if 'topic' in name:
            text += ' Topics are remapped: -r image:=/camera/image_raw'
        lines.append(text)
    return lines


def changes(node: Any, wanted: Iterable[Any]) -> list[Any]:
    """Leave out the rclpy Parameters that are set already; integers become doubles on the way."""
    found = []
    for parameter in wanted:
        field = _field(parameter.name)
        if field is not None:
            with contextlib.suppress(ValueError):  # rclpy refuses another type with its own words
                value = converted(parameter.name, field, plain(parameter.value))
                if repr(value) != repr(plain(parameter.value)):
                    kind = node.get_parameter_or(parameter.name, parameter).type_
                    parameter = Parameter(parameter.name, kind, value)
        if node.has_parameter(parameter.name):
            present = node.get_parameter(parameter.name)
            same = plain(present.value) == plain(parameter.value)
            if same and present.type_ == parameter.type_:
                continue
        found.append(parameter)
    return found


def _field(name: str) -> dataclasses.Field[Any] | None:
    if name.startswith(QOS_OVERRIDES):
        return None
    return fields(Settings).get(name) or fields(CameraSettings).get(name.rpartition('.')[2])


def read(node: Any) -> Settings:
    """Read all parameters of a node."""
    return Settings(**{name: plain(node.get_parameter(name).value) for name in fields(Settings)})


def read_camera(node: Any, camera: str, settings: Settings) -> CameraSettings:
    """Read a camera's parameters with 'as for all' resolved. The unnamed camera has none."""
    if not camera:
        return CameraSettings(settings.image_transport, settings.input_qos, settings.max_rate)
    names = fields(CameraSettings)
    own = CameraSettings(**{n: node.get_parameter(f'{camera}.{n}').value for n in names})
    return CameraSettings(
        own.image_transport or settings.image_transport,
        own.input_qos or settings.input_qos,
        settings.max_rate if own.max_rate < 0 else own.max_rate,
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
    """Judge a set of parameter changes (rclpy Parameters) before they happen."""
    for parameter in changes:
        field = _field(parameter.name)
        if field is None:
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


def _is_size(value: list[int]) -> bool:
    return len(value) == 2 and all(16 <= v <= 16384 for v in value)


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
    if name in ('warm_up_size', 'mask_size') and value != [0, 0] and not _is_size(value):
        return f'{name}: expected width and height of 16 to 16384 px, got {value}'
    if name == 'intensity_range' and not _is_range(value):
        return f'intensity_range: expected low < high, or [0, 0] for automatic, got {value}'
    if name in ('gate_zone', 'ignore_zones'):
        try:
            for text in [value] if name == 'gate_zone' else zones.named(value):
                zones.corners(text)
        except ValueError as error:
            return f'{name}: {error}'
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
