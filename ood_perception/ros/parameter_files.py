# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Whether the parameter files of a command line say anything about this node."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

KEY = 'ros__parameters'
UNREADABLE = (OSError, ValueError, yaml.YAMLError)


def problems(arguments: Sequence[str], node: str) -> list[str]:
    """Name the parameter files without an entry for a node, one line each."""
    lines = unreadable(arguments)
    for path in files(arguments):
        try:
            patterns = list(entries(_tree(path)))
        except UNREADABLE:
            continue
        if not any(matches(pattern, node) for pattern in patterns):
            found = ', '.join(patterns) or 'nothing'
            lines.append(
                f'{path} has no entry for {node}, it is ignored; it has one for {found}. Write '
                f'/**: or {node}: above {KEY}:'
            )
    return lines


def unreadable(arguments: Sequence[str]) -> list[str]:
    """Say why parameter files cannot be read, one line each; rcl itself names a line at most."""
    lines = []
    for path in files(arguments):
        try:
            _tree(path)
        except UNREADABLE as error:
            why = getattr(error, 'strerror', None) or ' '.join(str(error).split())
            lines.append(f'{path}: {why}')
    return lines


class _Keys(yaml.SafeLoader):
    """Passes over tags as rcl does: launch_ros writes lists as ``!!python/tuple``."""


_Keys.add_constructor(None, lambda loader, node: None)


def _tree(path: Path) -> Any:
    return yaml.load(path.read_text(encoding='utf-8'), _Keys)


def files(arguments: Sequence[str]) -> list[Path]:
    """Files that follow ``--params-file``."""
    pairs = itertools.pairwise(arguments)
    return [Path(value) for option, value in pairs if option == '--params-file']


def entries(tree: Any, prefix: str = '') -> Iterator[str]:
    """Names and patterns of nodes that have an entry in a parsed parameter file."""
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key == KEY:
            yield prefix or '/'
        elif isinstance(value, dict):
            yield from entries(value, f'{prefix}/{str(key).strip("/")}')


def matches(pattern: str, node: str) -> bool:
    """Whether a pattern as ``/**``, ``/*/ood`` or ``/robot/ood`` means a node."""
    parts = re.split(r'(/\*\*|\*)', '/' + pattern.strip('/'))
    words = {'/**': r'(/[^/]+)*', '*': '[^/]+'}
    return re.fullmatch(''.join(words.get(p, re.escape(p)) for p in parts), node) is not None
