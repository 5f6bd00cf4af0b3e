# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The wheel holds what the package needs, and runs where there is no checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = float(os.environ.get('OOD_TEST_PATIENCE', '1'))
EXTRAS = 'report'
"""Everything else that the commands below need, the base installation has to bring."""
PACKAGES = ('ood_evaluation', 'ood_perception', 'ood_simulation', 'ood_training')
COMPILED = ('openvino', 'openvino_bf16', 'openvino_int8')


def tracked(folder: str = '.') -> list[str]:
    """Files that git knows or would add, relative to the checkout."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard', folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip('not a git checkout')
    return sorted({name for name in listed.stdout.split('\0') if (ROOT / name).is_file()})


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the checkout: what earlier builds left behind must not get into it."""
    pytest.importorskip('setuptools', minversion='70.1')
    copy, out = tmp_path_factory.mktemp('copy'), tmp_path_factory.mktemp('wheel')
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation']
    subprocess.run([*command, '-w', str(out), str(copy)], check=True, timeout=300)
    (path,) = out.glob('*.whl')
    return path


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not {n for package in PACKAGES for n in tracked(package) if n not in names}
    data = {n.split('.data/data/share/ood_perception/')[-1] for n in names if '.data/' in n}
    assert not {n for n in (*tracked('config'), *tracked('launch')) if n not in data}
    assert {'package.xml', 'environment/path.sh', 'environment/path.dsv'} <= data


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    first = {n.split('/')[0] for n in names}
    packages = {n for n in first if not n.endswith(('.dist-info', '.data'))}
    assert packages == set(PACKAGES)
    assert not [n for n in names if '/test' in n or 'research' in n or n.endswith('.pyc')]
    assert wheel.stat().st_size < 30e6


def test_the_wheel_s_commands_and_dependencies(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry,) = [n for n in archive.namelist() if n.endswith('entry_points.txt')]
    commands = archive.read(entry).decode()
    assert 'ood = ood_perception.cli.main:main' in commands
    assert 'ood_node = ood_perception.ros.main:run' in commands
    (metadata,) = [n for n in archive.namelist() if n.endswith('METADATA')]
    needed = [
        line.removeprefix('Requires-Dist: ')
        for line in archive.read(metadata).decode().splitlines()
        if line.startswith('Requires-Dist: ') and 'extra ==' not in line
    ]
    assert any(n.startswith('openvino') for n in needed)
    assert not any(n.startswith(('onnx', 'ray', 'lightning', 'pytest')) for n in needed)


@pytest.fixture(scope='module')
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, its declared dependencies and ROS 2 as wheels."""
    folder = tmp_path_factory.mktemp('clean')
    uv = [sys.executable, '-m', 'uv']
    subprocess.run(
        [*uv, 'venv', '-q', '--python', sys.executable, str(folder / 'venv')], check=True
    )
    python = str(folder / 'venv' / 'bin' / 'python')
    locks = ROOT / 'requirements'
    arguments = ['-c', str(locks / 'run.txt'), '-r', str(locks / 'ros.txt')]
    install = [*uv, 'pip', 'install', '-q', '--python', python, f'{wheel}[{EXTRAS}]', *arguments]
    subprocess.run(install, check=True, timeout=1500)
    return folder


def run(clean: Path, *arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """`ood ARGUMENTS` as a stranger's shell would, far from the checkout."""
    kept = ('HOME', 'LANG', 'OMP_NUM_THREADS', 'TMPDIR')
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment['PATH'] = f'{clean / "venv" / "bin"}:/usr/bin:/bin'
    environment['ROS_DOMAIN_ID'] = os.environ.get('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    environment['COLUMNS'] = '200'
    work = clean / 'work'
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        ['ood', *arguments],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout * PATIENCE,
        check=False,
    )
    assert 'Traceback' not in done.stderr, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.timeout(1800 * PATIENCE)
def test_the_installed_demo_runs_a_compiled_engine(clean: Path) -> None:
    done = run(clean, 'demo', '--seconds', '3')
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((clean / 'work' / 'demo_output' / 'summary.json').read_text())
    assert summary['engine'] in COMPILED, summary
    assert summary['frames_out'] > 0
    assert (clean / 'work' / 'demo_output' / 'report.html').stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(1800 * PATIENCE)
def test_the_installed_calibration_knows_the_label_maps(clean: Path) -> None:
    from PIL import Image

    from ood_simulation import ProvingGround

    ground = ProvingGround(seed=1007, width=320, height=240)
    for name in ('images', 'labels'):
        (clean / 'work' / 'data' / name).mkdir(parents=True, exist_ok=True)
    for index in range(4):
        frame = ground.frame(20 * index)
        for name, picture in (('images', frame.image), ('labels', frame.anomaly)):
            Image.fromarray(picture).save(clean / 'work' / 'data' / name / f'{index}.png')
    arguments = ('--data', 'data', '--label-map', 'benchmark', '--out', 'mine.yaml')
    done = run(clean, 'train', 'calibrate', 'compact', *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'mine.yaml' in done.stdout
    assert (clean / 'work' / 'mine.yaml').is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800 * PATIENCE)
def test_the_installed_doctor_finds_no_error(clean: Path) -> None:
    done = run(clean, 'doctor', '--seconds', '0', '--json')
    findings = json.loads(done.stdout)
    assert done.returncode == 0, findings
    (tried,) = [f for f in findings if f['name'] == 'engine openvino']
    assert tried['level'] == 'ok'
    assert tried['text'].startswith('runs')


@pytest.mark.slow
@pytest.mark.timeout(1800 * PATIENCE)
def test_the_installed_bench_names_a_compiled_engine(clean: Path) -> None:
    arguments = ('--engines', 'auto', '--runs', '1', '--sizes', '160x120', '--output', 'b.csv')
    done = run(clean, 'bench', *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(f'auto: {name} ' in done.stdout for name in COMPILED), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800 * PATIENCE)
def test_the_installed_package_runs_as_a_module(clean: Path) -> None:
    assert run(clean, '--version').stdout.startswith('ood_perception ')
    python = str(clean / 'venv' / 'bin' / 'python')
    module = [python, '-m', 'ood_perception', '--version']
    told = subprocess.run(module, cwd=clean, capture_output=True, text=True, check=True).stdout
    assert told.startswith('ood_perception ')
