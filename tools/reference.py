# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The reference, written from the code: config/ood.yaml, the schema of profiles, the docs' tables.

``python -m tools.reference`` rewrites the files in a checkout; tests fail when they differ from
what the code says.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ood_perception.ros.outputs import TOPICS
from ood_perception.ros.services import SERVICES
from ood_perception.ros.settings import (
    START,
    UNCONFIGURED,
    CameraSettings,
    Settings,
    constraint,
    default,
    fields,
)
from ood_perception.ros.subscriptions import INPUTS
from tools.profile_schema import profile_schema

PAGE = 'docs/topics_and_parameters.md'
CONFIG = 'config/ood.yaml'
SCHEMA = 'config/profile.schema.json'

_WHEN = {START: 'at the start', UNCONFIGURED: 'while unconfigured'}


def config_text() -> str:
    """Text of config/ood.yaml: every parameter with its default and what it does."""
    lines = [
        '# Every parameter of the node with its default. Written by',
        '#   python -m tools.reference',
        '# Use: ros2 launch ood_perception ood.launch.py params_file:=MY.yaml',
        '#  or: ood_node --ros-args --params-file MY.yaml',
        '# Unmarked parameters can be changed at any time (ros2 param set /ood NAME VALUE).',
        '',
        '/**:',
        '  ros__parameters:',
    ]
    for name, field in fields(Settings).items():
        lines += [*_comment(field), f'    {name}: {_yaml(default(field))}', '']
    lines.append('    # With cameras: [front, rear], each camera can differ from the rest:')
    for name, field in fields(CameraSettings).items():
        lines += _comment(field, mark='#')
        lines += [f'    # front.{name}: {_yaml(default(field))}']
    lines += [
        '',
        '    # QoS of any single topic, by its full name (see docs/topics_and_parameters.md):',
        '    # qos_overrides./camera/image_raw.subscription.reliability: reliable',
        '    # qos_overrides./ood/heatmap.publisher.depth: 5',
    ]
    return '\n'.join(lines) + '\n'


def schema_text() -> str:
    """Text of config/profile.schema.json, by which editors check and explain profiles."""
    head = {
        '$schema': 'https://json-schema.org/draft/2020-12/schema',
        '$comment': 'Written by python -m tools.reference',
    }
    return json.dumps({**head, **profile_schema()}, indent=2, ensure_ascii=False) + '\n'


def tables() -> dict[str, str]:
    """Markdown tables of the documentation page, by the name of their place in it."""
    inputs = _table(
        ('input', 'one camera', '`cameras: [front, ...]`', 'type', 'meaning'),
        [
            (name, f'`{single}`', f'`{many.format(camera="front")}`', f'`{kind}`', text)
            for name, (single, many, kind, text) in INPUTS.items()
        ],
    )
    outputs = _table(
        ('one camera', '`cameras: [front, ...]`', 'type', 'meaning'),
        [
            (f'`~/{name}`', f'`~/front/{name}`', f'`{kind}`', text)
            for name, (kind, text) in TOPICS.items()
        ]
        + [
            (
                '`/diagnostics`',
                'the same',
                '`diagnostic_msgs/msg/DiagnosticArray`',
                'once a second: the node, and each camera with rates, drops, milliseconds per '
                'stage (median and 95th percentile) and last error',
            )
        ],
    )
    services = _table(
        ('service', 'type', 'meaning'),
        [
            (f'`~/{name}`', f'`{_service_type(kind)}`', text)
            for name, (kind, text) in SERVICES.items()
        ],
    )
    return {
        'inputs': inputs,
        'outputs': outputs,
        'services': services,
        'parameters': _parameter_table(Settings, ''),
        'camera parameters': _parameter_table(CameraSettings, 'front.'),
    }


def page_text(page: str) -> str:
    """
    Put the tables into a documentation page, between the marks that name them.

    Args:
        page: Markdown with ``<!-- table: NAME -->`` and ``<!-- end -->`` around each table.

    Raises:
        ValueError: a table has no place in the page.

    """
    for name, table in tables().items():
        pattern = rf'(<!-- table: {name} -->\n).*?(<!-- end -->)'
        pieces = re.split(pattern, page, flags=re.DOTALL)
        if len(pieces) != 4:
            found = len(pieces) // 3
            raise ValueError(f'{PAGE}: expected one place for the table {name!r}, found {found}')
        before, start, end, after = pieces
        page = before + start + table + end + after
    return page


def main() -> None:
    """Rewrite the files of the configuration and the tables of the page in this checkout."""
    root = Path(__file__).resolve().parents[1]
    (root / SCHEMA).write_text(schema_text(), encoding='utf-8')
    (root / CONFIG).write_text(config_text(), encoding='utf-8')
    page = root / PAGE
    page.write_text(page_text(page.read_text(encoding='utf-8')), encoding='utf-8')


def _parameter_table(kind: type, prefix: str) -> str:
    rows = []
    for name, field in fields(kind).items():
        meta = field.metadata
        rows.append(
            (
                f'`{prefix}{name}`',
                _type(default(field)),
                meta['unit'],
                f'`{_yaml(default(field))}`',
                constraint(field).rstrip('.').replace("''", '(empty)'),
                _WHEN.get(meta['change'], 'at any time'),
                meta['text'],
            )
        )
    return _table(('parameter', 'type', 'unit', 'default', 'allowed', 'changes', 'meaning'), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ('---',) * len(head), *rows]
    return ''.join(
        '| ' + ' | '.join(cell.replace('|', '\\|') for cell in r) + ' |\n' for r in lines
    )


def _comment(field: Any, mark: str = '') -> list[str]:
    meta = field.metadata
    unit = f' [{meta["unit"]}]' if meta['unit'] else ''
    text = ' '.join(t for t in (meta['text'] + unit, constraint(field)) if t)
    if meta['change'] in _WHEN:
        text += f' Changes {_WHEN[meta["change"]]} only.'
    start = f'    #{mark} '
    return textwrap.wrap(text, 95, initial_indent=start, subsequent_indent=start)


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix('\n').removesuffix('\n...')


def _type(value: Any) -> str:
    if isinstance(value, list):
        return f'{_type(value[0])}[]'
    return {'str': 'string', 'float': 'double'}.get(type(value).__name__, type(value).__name__)


def _service_type(kind: Any) -> str:
    return f'{kind.__module__.partition(".")[0]}/srv/{kind.__name__}'


if __name__ == '__main__':
    main()
