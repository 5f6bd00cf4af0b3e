# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""How the process `ood_node` starts and ends: exit codes, and one line for each mistake."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from node_helpers import PATIENCE, ROOT
from node_helpers import write_profile as tiny

from ood_perception.ros import main as parameter_files


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, '-m', 'ood_perception.ros.main', '--ros-args', *arguments]
    with open(folder / 'log', 'wb') as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **environment}
        )


def ended(process: subprocess.Popen, folder: Path) -> tuple[int, list[str]]:
    """Exit code and lines of a process that ends by itself."""
    try:
        code = process.wait(60 * PATIENCE)
    finally:
        process.kill()
    return code, (folder / 'log').read_text(errors='replace').splitlines()


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['-p', 'max_batch:=many'], "max_batch: expected an integer such as 4, got 'many'"),
        (['-r', '__ns:=/my cam'], 'my cam'),
        (['--params-file', '/none.yaml'], '/none.yaml'),
        (['-p', 'broken'], 'broken'),
        pytest.param(
            ['-p', 'cameras:=[]'],
            'an empty list, which has no type in ROS 2: leave it out',
            marks=pytest.mark.slow,
        ),
    ],
    ids=['type', 'namespace', 'file', 'syntax', 'empty list'],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_1(tmp_path, arguments, text):
    code, lines = ended(start(tmp_path, '-r', f'__node:=m{os.getpid()}', *arguments), tmp_path)
    assert code == 1
    assert any(text in line for line in lines), lines
    assert not any('Traceback' in line for line in lines), lines


@pytest.mark.parametrize(
    'content',
    ['ood:\n  max_rate: 5.0\n', 'ood:\n\tros__parameters:\n\t\tmax_rate: 5.0\n', '[1, 2'],
    ids=['no ros__parameters', 'tabs', 'syntax'],
)
def test_a_broken_params_file_is_named_without_a_traceback(tmp_path, content):
    file = tmp_path / 'mine.yaml'
    file.write_text(content)
    process = start(tmp_path, '--params-file', str(file), '-p', 'profile:=/none.yaml')
    code, lines = ended(process, tmp_path)
    assert code == 1
    assert any('mine.yaml' in line for line in lines), lines
    assert not any('Traceback' in line for line in lines), lines


def test_a_log_folder_that_cannot_be_written_names_the_variable(tmp_path):
    (tmp_path / 'file').write_text('')
    blocked = str(tmp_path / 'file' / 'log')
    code, lines = ended(start(tmp_path, ROS_LOG_DIR=blocked), tmp_path)
    assert code == 1
    (line,) = [line for line in lines if line.startswith('ood_node:')]
    assert 'ROS_LOG_DIR' in line
    assert blocked in line
    assert not any('Traceback' in line for line in lines), lines


@pytest.mark.parametrize(
    ('library', 'how'),
    [
        ('_rclpy_pybind11', signal.SIGINT),
        ('libtorch_cpu', signal.SIGTERM),
        pytest.param('_rclpy_pybind11', signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param('libtorch_cpu', signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_starting_ends_it_cleanly(tmp_path, library, how):
    process = start(tmp_path, '-r', f'__node:=s{os.getpid()}', '-p', f'profile:={tiny(tmp_path)}')
    end = time.monotonic() + 60 * PATIENCE
    maps = Path(f'/proc/{process.pid}/maps')
    while library not in maps.read_text() and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(0.05)
    process.send_signal(how)
    code, lines = ended(process, tmp_path)
    assert not any('Traceback' in line for line in lines), lines
    if how == signal.SIGINT or library != '_rclpy_pybind11':
        assert code == 0


def test_a_shutdown_under_way_is_waited_for(ros):
    from ood_perception.ros.main import stopped

    assert not stopped(0.05)
    code = (
        'import rclpy, threading; from ood_perception.ros.main import stopped; rclpy.init(); '
        'threading.Timer(0.1, rclpy.shutdown).start(); assert stopped(10)'
    )
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True, timeout=60 * PATIENCE)


SEGMENTS = Path('/dev/shm')


@pytest.mark.skipif(
    'fastrtps' not in rclpy.get_rmw_implementation_identifier() or not SEGMENTS.is_dir(),
    reason='needs Fast DDS and /dev/shm',
)
@pytest.mark.parametrize(
    'how',
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=['SIGINT', 'SIGTERM'],
)
def test_a_node_that_ran_leaves_no_shared_memory(tmp_path, how):
    before = set(SEGMENTS.glob('fastdds_*'))
    process = start(tmp_path, '-r', f'__node:=m{os.getpid()}', '-p', f'profile:={tiny(tmp_path)}')
    maps, own = Path(f'/proc/{process.pid}/maps'), set()
    end = time.monotonic() + 60 * PATIENCE
    while not own and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
        found = re.findall(r'/dev/shm/fastdds_[0-9a-f]{16}\b', maps.read_text())
        own = {Path(name) for name in found} - before
    time.sleep(1)
    process.send_signal(how)
    code, lines = ended(process, tmp_path)
    assert code == 0, lines
    assert own
    assert not [path for path in own if path.exists()]


def test_a_missing_profile_and_parameters_that_no_one_reads_are_said(tmp_path):
    """The latter with the nearest name."""
    file = tmp_path / 'other.yaml'
    file.write_text(yaml.safe_dump({'ood_node': {'ros__parameters': {'max_rate': 1.0}}}))
    process = start(
        tmp_path,
        *('-r', f'__node:=u{os.getpid()}', '--params-file', str(file)),
        *('-p', 'detection_treshold:=0.9', '-p', 'image_topic:=/x', '-p', 'rear.max_rate:=2'),
        *('-p', 'profile:=/none.yaml'),
    )
    code, lines = ended(process, tmp_path)
    text = '\n'.join(lines)
    assert code == 1
    assert any('/none.yaml' in line for line in lines), lines
    assert 'Traceback' not in text
    assert 'detection_treshold is ignored' in text
    assert 'did you mean detection_threshold?' in text
    assert '-r image:=' in text
    assert "no camera is named 'rear'" in text
    assert 'other.yaml has no entry for' in text
    assert '/ood_node' in text


@pytest.mark.parametrize(
    ('pattern', 'node', 'expected'),
    [
        ('/**', '/ood', True),
        ('/**', '/a/b/ood', True),
        ('/*', '/ood', True),
        ('/*', '/a/ood', False),
        ('/*/ood', '/robot/ood', True),
        ('/*/ood', '/ood', False),
        ('/**/ood', '/ood', True),
        ('/**/ood', '/a/b/ood', True),
        ('ood', '/ood', True),
        ('/robot/ood', '/robot/ood', True),
        ('ood', '/robot/ood', False),
        ('/o.d', '/ood', False),
        ('ood_node', '/ood', False),
    ],
)
def test_patterns_of_parameter_files(pattern, node, expected):
    assert parameter_files.matches(pattern, node) is expected


@pytest.mark.parametrize('content', ['', '# nothing\n', '[]', 'ood: {}'])
def test_a_parameter_file_that_says_nothing_is_named(tmp_path, content):
    file = tmp_path / 'mine.yaml'
    file.write_text(content)
    (line,) = parameter_files.problems(['--params-file', str(file)], '/ood')
    assert line.startswith(f'{file} has no entry for /ood, it is ignored; it has one for nothing')


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        (b'/**:\n\tros__parameters:\n', "found character '\\t'"),
        (None, 'No such file'),
    ],
    ids=['tab', 'missing'],
)
def test_why_a_parameter_file_cannot_be_read_is_said(tmp_path, content, text):
    file = tmp_path / 'mine.yaml'
    if content is not None:
        file.write_bytes(content)
    code, (*_, line) = ended(start(tmp_path, '--params-file', str(file)), tmp_path)
    assert code == 1
    assert line.startswith('ood_node: ')
    assert f'-> {file}: ' in line
    assert text in line


def test_a_list_of_launch_ros_is_no_fault(tmp_path):
    file = tmp_path / 'launch_params'
    values = {'/ood': {'ros__parameters': {'cameras': ('front', 'left')}}}
    file.write_text(yaml.dump(values))
    assert 'python/tuple' in file.read_text()
    assert parameter_files.problems(['--params-file', str(file)], '/ood') == []


def test_nested_names_of_a_parameter_file():
    tree = {'robot': {'ood': {'ros__parameters': {}}, '/**': {'ros__parameters': {}}}}
    assert list(parameter_files.entries(tree)) == ['/robot/ood', '/robot/**']
    assert list(parameter_files.entries([1])) == []
