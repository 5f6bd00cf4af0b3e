# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import fcntl
import importlib.util
import re
import socket
import sys
import time
from pathlib import Path

import pytest

from ood_perception import diagnosis
from ood_perception.diagnosis import (
    ERROR,
    OK,
    WARN,
    cheap_checks,
    engines,
    hardware,
    middleware,
    software,
)

ENVIRONMENT = (
    'CYCLONEDDS_URI',
    'FASTDDS_DEFAULT_PROFILES_FILE',
    'FASTRTPS_DEFAULT_PROFILES_FILE',
    'RMW_IMPLEMENTATION',
    'ROS_DISTRO',
    'ROS_DOMAIN_ID',
    'ROS_LOCALHOST_ONLY',
    'ZENOH_CONFIG_OVERRIDE',
    'ZENOH_SESSION_CONFIG_URI',
)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a new shell."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def by_name(findings) -> dict[str, diagnosis.Finding]:
    return {f.name: f for f in findings}


def test_every_finding_but_ok_has_a_remedy() -> None:
    findings = cheap_checks()
    assert {'python', 'numpy', 'torch', 'device', 'profile', 'domain'} <= {
        f.name for f in findings
    }
    for finding in findings:
        assert finding.level in (OK, WARN, ERROR)
        assert finding.level == OK or finding.remedy, finding


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken():
        raise RuntimeError('no /proc here')

    monkeypatch.setattr(hardware, 'check_clock', broken)
    (finding,) = [f for f in cheap_checks() if 'no /proc here' in f.text]
    assert finding.level == ERROR


@pytest.mark.parametrize('distro', ['', 'humble', 'iron', 'jazzy', 'kilted', 'lyrical'])
@pytest.mark.parametrize('state', ['file', 'no file', 'other name', 'nothing'])
def test_the_fast_dds_profile_by_the_name_that_this_version_reads(
    distro: str, state: str, tmp_path: Path, clean: pytest.MonkeyPatch
) -> None:
    clean.setenv('ROS_DISTRO', distro)
    old = distro in ('humble', 'iron', 'jazzy')
    used, other = 'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'
    used, other = (other, used) if old else (used, other)
    path = tmp_path / 'fastdds.xml'
    if state != 'no file':
        path.write_text('<dds/>')
    if state != 'nothing':
        clean.setenv(other if state == 'other name' else used, str(path))
    finding = by_name(middleware.check_transport(1000))['fast dds profile']
    levels = {'file': OK, 'no file': ERROR, 'other name': WARN, 'nothing': WARN}
    assert finding.level == levels[state]
    if finding.level != OK:
        assert f'export {used}=' in finding.remedy
        assert '...' not in finding.remedy
        if state != 'other name':
            named = finding.remedy.partition('=')[2].partition(',')[0]
            assert Path(named).is_file()


def test_segments_of_processes_that_were_killed_are_counted(tmp_path) -> None:
    for name in ('gone', 'held', 'cut'):
        (tmp_path / f'fastdds_{name}').write_bytes(bytes(1 << 20))
        (tmp_path / f'fastdds_{name}_el').touch()
    (tmp_path / 'fastdds_cut').unlink()
    (tmp_path / 'other').write_bytes(bytes(1 << 20))
    with (tmp_path / 'fastdds_held_el').open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert middleware.left_behind(tmp_path) == 1 << 20
    assert middleware.left_behind(tmp_path) == 2 << 20
    assert middleware.left_behind(tmp_path / 'none') == 0


@pytest.mark.parametrize('name', ['rmw_cyclonedds_cpp', 'rmw_zenoh_cpp', 'rmw_connextdds'])
def test_no_advice_for_fast_dds_where_another_middleware_runs(name, clean) -> None:
    clean.setenv('RMW_IMPLEMENTATION', name)
    findings = list(middleware.check_transport(3_000_000))
    assert findings
    assert not any('FAST' in f.text + f.remedy for f in findings)
    assert any(name.split('_')[1][:5] in (f.name + f.text).replace(' ', '') for f in findings)


def test_cyclone(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    clean.setenv('RMW_IMPLEMENTATION', 'rmw_cyclonedds_cpp')
    found = by_name(middleware.check_transport(1000))['cyclone dds']
    assert (found.level, 'CYCLONEDDS_URI=' in found.remedy) == (WARN, True)
    clean.setenv('CYCLONEDDS_URI', f'file://{tmp_path / "c.xml"}')
    assert by_name(middleware.check_transport(1000))['cyclone dds'].level == ERROR
    (tmp_path / 'c.xml').write_text('<CycloneDDS/>')
    assert by_name(middleware.check_transport(1000))['cyclone dds'].level == OK


def test_zenoh_router(clean: pytest.MonkeyPatch) -> None:
    clean.setenv('RMW_IMPLEMENTATION', 'rmw_zenoh_cpp')
    with socket.create_server(('localhost', 0)) as router:
        clean.setattr(middleware, 'ROUTER', router.getsockname()[:2])
        assert by_name(middleware.check_transport(1000))['zenoh router'].level == OK
    found = by_name(middleware.check_transport(1000))
    assert found['zenoh router'].level == ERROR
    assert found['zenoh router'].remedy == 'ros2 run rmw_zenoh_cpp rmw_zenohd'
    assert found['zenoh shared memory'].level == WARN
    clean.setenv('ZENOH_CONFIG_OVERRIDE', 'transport/shared_memory/enabled=true')
    found = by_name(middleware.check_transport(1000))
    assert found['zenoh router'].level == OK
    assert 'zenoh shared memory' not in found


@pytest.mark.parametrize(
    ('number', 'level'),
    [('', OK), ('0', OK), ('101', OK), ('102', WARN), ('214', WARN), ('215', OK), ('232', OK),
     ('233', ERROR), ('-1', ERROR), ('robot', ERROR)],
)  # fmt: skip
def test_domain(number: str, level: str, clean: pytest.MonkeyPatch) -> None:
    clean.setenv('ROS_DOMAIN_ID', number)
    finding = by_name(middleware.check_domain())['domain']
    assert finding.level == level
    assert bool(finding.remedy) == (level != OK)


def test_a_middleware_that_is_not_installed(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    pytest.importorskip('rclpy')
    (tmp_path / 'librmw_fastrtps_cpp.so').write_bytes(b'')
    clean.setenv('LD_LIBRARY_PATH', str(tmp_path))
    clean.setenv('AMENT_PREFIX_PATH', '')
    clean.setenv('ROS_DISTRO', 'jazzy')
    assert by_name(middleware.check_ros())['rmw'].level == OK
    clean.setenv('RMW_IMPLEMENTATION', 'rmw_zenoh_cpp')
    finding = by_name(middleware.check_ros())['rmw']
    assert finding.level == ERROR
    assert 'sudo apt install ros-jazzy-rmw-zenoh-cpp' in finding.remedy


def test_points_need_no_package(clean: pytest.MonkeyPatch) -> None:
    pytest.importorskip('rclpy')
    assert 'points' not in ' '.join(f.text + f.name for f in middleware.check_ros())


def install(folder: Path, name: str, version: str, package: str = '') -> None:
    info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
    info.mkdir(parents=True)
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    if package:
        (folder / package).mkdir(exist_ok=True)
        (folder / package / '__init__.py').write_text('')


def test_several_copies_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv, system = tmp_path / 'venv', tmp_path / 'dist-packages'
    install(venv, 'numpy', '2.1.0')
    install(venv, 'cv-bridge', '1.13.0', 'cv_bridge')
    monkeypatch.setattr(sys, 'path', [str(venv), str(system)])
    assert list(software.check_duplicates()) == []
    install(system, 'numpy', '1.26.4')
    install(system, 'cv-bridge', '4.1.0', 'cv_bridge')
    install(venv, 'opencv-python', '4.11.0')
    install(venv, 'opencv-python-headless', '4.11.0')
    found = by_name(software.check_duplicates())
    assert set(found) == {'numpy copies', 'cv_bridge copies', 'opencv copies'}
    assert found['numpy copies'].text.startswith(f'2.1.0 in {venv} hides 1.26.4')
    assert found['numpy copies'].remedy == 'pip install "numpy>=1,<2"'
    assert all(f.level == WARN and re.search('pip (un)?install', f.remedy) for f in found.values())


def test_a_module_that_cannot_be_imported(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / 'cv_bridge').mkdir()
    init = tmp_path / 'cv_bridge' / '__init__.py'
    init.write_text('raise ImportError("_ARRAY_API not found")')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    (finding,) = software.check_imports()
    assert finding.level == WARN
    assert '_ARRAY_API not found' in finding.text
    init.write_text('import os; os.abort()')
    assert [f.level for f in software.check_imports()] == [WARN]
    init.write_text('')
    assert list(software.check_imports()) == []


def test_engines_are_tried_and_not_only_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip('for the engines of a CPU')
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    from ood_perception.engines import ENGINES

    assert by_name(engines.check_engines())['engine onnxruntime'].level == OK

    def broken(*_: object) -> object:
        raise RuntimeError('illegal instruction')

    monkeypatch.setitem(ENGINES, 'onnxruntime', broken)
    finding = by_name(engines.check_engines())['engine onnxruntime']
    assert finding.level == ERROR
    assert 'illegal instruction' in finding.text
    monkeypatch.setitem(
        ENGINES, 'onnxruntime', lambda *_: lambda x: engines.small_network()(x + 1)
    )
    assert 'differs' in by_name(engines.check_engines())['engine onnxruntime'].text
    monkeypatch.setitem(engines.NEEDS, 'onnxruntime', ('onnxruntime', 'no_such_module'))
    finding = by_name(engines.check_engines())['engine onnxruntime']
    assert 'not installed (no_such_module)' in finding.text
    monkeypatch.setitem(engines.NEEDS, 'openvino', ('openvino', 'no_such_module'))
    monkeypatch.setattr(engines.platform, 'machine', lambda: 'x86_64')
    (finding,) = engines.check_installed()
    assert (finding.level, finding.remedy) == (WARN, 'pip install no-such-module')


def test_the_engine_in_use_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    two = ['openvino', 'eager']  # all of them take half a minute
    monkeypatch.setattr('ood_perception.engines.candidates', lambda *_: two)
    (finding,) = engines.check_choice('compact', (48, 64))
    assert re.match(r'\w+ on (cpu|cuda\S*) for images of 64x48', finding.text)
    assert finding.level == OK or finding.remedy
    assert list(engines.check_choice('no such profile', (48, 64))) == []


def jetson(root: Path, tools: Path, mode: str) -> None:
    (root / 'proc/device-tree').mkdir(parents=True)
    model = 'NVIDIA Jetson AGX Orin Developer Kit\0'
    (root / 'proc/device-tree/model').write_text(model)
    (root / 'etc').mkdir()
    (root / 'etc/nv_tegra_release').write_text('# R36 (release), REVISION: 4.0, GCID: 1\n')
    (root / 'usr/lib/aarch64-linux-gnu').mkdir(parents=True)
    (root / 'usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0').write_bytes(b'')
    tool = tools / 'nvpmodel'
    tool.write_text(f'#!/bin/sh\necho "NV Power Mode: {mode}"\necho 2\n')
    tool.chmod(0o755)


@pytest.mark.parametrize(('mode', 'level'), [('MAXN', OK), ('MODE_30W', WARN)])
def test_jetson(mode: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert list(hardware.check_jetson()) == []
    jetson(tmp_path, tmp_path, mode)
    monkeypatch.setattr(hardware, 'ROOT', tmp_path)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
    found = by_name(hardware.check_jetson())
    assert 'Orin' in found['jetson'].text
    assert 'R36' in found['jetson'].text
    assert (found['jetson power'].level, mode in found['jetson power'].text) == (level, True)
    assert '10.3.0' in found['jetson tensorrt'].text
    if not torch.cuda.is_available():
        assert found['jetson torch'].level == ERROR
        assert 'pypi.jetson-ai-lab.io/jp6' in found['jetson torch'].remedy
        assert list(hardware.check_device()) == []


def test_old_clock_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.time, 'gmtime', lambda: time.struct_time((1970,) + (0,) * 8))
    (finding,) = hardware.check_clock()
    assert finding.level == ERROR
    assert finding.remedy


def test_no_module_is_asked_for_that_auto_does_without(monkeypatch):
    import importlib.util

    import torch

    from ood_perception.diagnosis import engines
    from ood_perception.engines import candidates

    for name, needs in engines.NEEDS.items():
        monkeypatch.setattr(importlib.util, 'find_spec', lambda m, n=needs: m in n or None)
        device = torch.device('cuda' if name == 'tensorrt' else 'cpu')
        assert [n for n in candidates(device) if n in engines.NEEDS] == [name]
        for module in needs:
            rest = set(needs) - {module}
            monkeypatch.setattr(importlib.util, 'find_spec', lambda m, r=rest: m in r or None)
            assert name not in candidates(device), f'{name} does not need {module}'


def test_absent_message_packages_are_one_finding(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name: None if name.endswith('_msgs') else found(name)
    )
    if found('rclpy') is None:
        pytest.skip('needs rclpy')
    (finding,) = [f for f in middleware.check_ros() if 'vision_msgs' in f.text]
    assert finding.level == WARN
    assert '~/annotations' in finding.text
    assert 'foxglove-msgs' in finding.remedy
