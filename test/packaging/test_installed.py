# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a robot's installation must be able to do; the short check of `colcon test`."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ood_perception
from ood_perception.profile import Profile, profile_folders, profile_names

pytestmark = pytest.mark.colcon

PACKAGE = Path(ood_perception.__file__).parent


def share(*parts: str) -> Path:
    """A file of config/ or launch/, beside the package or installed."""
    folder = next(f for f in profile_folders() if (f / 'compact.yaml').is_file())
    return folder.parents[1].joinpath(*parts)


@pytest.mark.parametrize('name', profile_names())
def test_every_profile_loads(name: str) -> None:
    assert Profile.load(name).name == name


def test_label_maps_are_there() -> None:
    from ood_training.label_maps import load_label_map

    assert load_label_map('benchmark').classes == ['known']
    assert load_label_map('camvid').classes


def test_the_files_of_the_report_are_there() -> None:
    import ood_evaluation

    folder = Path(ood_evaluation.__file__).parent
    assert (folder / 'templates' / 'report.html.j2').is_file()
    assert len(list(folder.glob('photographs/*.jpg'))) == 3


@pytest.mark.parametrize(
    'engine',
    ['eager', pytest.param('auto', marks=pytest.mark.slow)],  # that measures all engines
)
def test_the_compact_pipeline_scores_a_frame(engine: str) -> None:
    from ood_perception import Pipeline

    frame = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    pipeline = Pipeline.from_profile('compact', device='cpu', engine=engine)
    try:
        (result,) = pipeline(frame, wants={'score', 'heatmap'})
    finally:
        pipeline.close()
    assert result.score.shape == result.heatmap.shape == (96, 128)
    assert np.isfinite(result.score).all()


def test_it_runs_as_a_module() -> None:
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(PACKAGE.parent), *sys.path])}
    told = subprocess.run(
        [sys.executable, '-m', 'ood_perception', '--version'],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=True,
    ).stdout
    assert told.split() == ['ood_perception', ood_perception.__version__]


@pytest.mark.parametrize('name', ['ood.launch.py', 'replay.launch.py', 'webcam.launch.py'])
def test_launch_files_are_python(name: str) -> None:
    tree = ast.parse(share('launch', name).read_text(encoding='utf-8'))
    assert any(getattr(part, 'name', '') == 'generate_launch_description' for part in tree.body)


def test_messages_of_the_node_can_be_imported() -> None:
    pytest.importorskip('rclpy', reason='needs rclpy (a sourced ROS 2 or the PyPI wheels)')
    import ood_perception.ros.main

    for name in ('sensor_msgs', 'std_msgs', 'std_srvs', 'diagnostic_msgs', 'rosgraph_msgs'):
        assert importlib.util.find_spec(name), name
    assert callable(ood_perception.ros.main.run)
