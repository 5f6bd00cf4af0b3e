# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Under `colcon test` only the short check of an installation runs: the tests marked `colcon`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

UNDER_COLCON = os.environ.get('COLCON') == '1'

# The other files are not even imported: a robot lacks what only they need.
collect_ignore = [
    str(path)
    for path in (Path(__file__).parent.rglob('test_*.py') if UNDER_COLCON else [])
    if 'mark.colcon' not in path.read_text(encoding='utf-8')
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not marked, unless files were named."""
    if not UNDER_COLCON:
        return
    chosen = [item for item in items if item.get_closest_marker('colcon')]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.fixture(autouse=True, scope='session')
def _keep_freed_memory() -> None:
    """Zeroing pages over and over is a tenth of the suite's time."""
    if not UNDER_COLCON:
        from ood_perception.host_memory import keep_freed_memory

        keep_freed_memory()


@pytest.fixture(autouse=True, scope='module')
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread a worker, as others work beside it; but the node is tested with all it takes."""
    if UNDER_COLCON or request.path.parent.name == 'ros':
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
