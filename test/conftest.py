# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Under `colcon test` only the short check of an installation runs: the tests marked `colcon`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# A test that imports OpenVINO itself, before the package does, would let it report its use: with a
# process of seconds for each network that is converted. That the package does not is tested apart.
sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]

UNDER_COLCON = os.environ.get('COLCON') == '1'

# The other files are not even imported: a robot lacks what only they need.
collect_ignore = [
    str(path)
    for path in (Path(__file__).parent.rglob('test_*.py') if UNDER_COLCON else [])
    if 'mark.colcon' not in path.read_text(encoding='utf-8')
]


# Longest first: two workers take one file after another, in this order, and one that begins late
# would leave the other worker without work at the end.
LONGEST = (
    'engines/test_onnx.py',
    'test/test_residency.py',
    'engines/test_engines.py',
    'simulation/test_proving_ground.py',
    'cli/test_commands.py',
    'masks/test_detection_head.py',
    'models/test_faster_rcnn.py',
    'test/test_host_memory.py',
    'test/test_pipeline.py',
    'cli/test_run.py',
    'masks/test_masks_in_pipeline.py',
    'evaluation/test_requirements.py',
    'engines/test_small.py',
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files that take longest first; under colcon leave out what is not marked."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get('/'.join(item.path.parts[-2:]), len(ranks)))
    if not UNDER_COLCON:
        return
    chosen = [item for item in items if item.get_closest_marker('colcon')]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen
