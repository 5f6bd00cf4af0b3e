# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The benchmark scripts run: the GPU suite's rehearsal, the peers, the chart."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(BENCHMARKS.parent)}
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)


def read(path: Path) -> list[dict[str, str]]:
    lines = path.read_text(encoding='utf-8').splitlines()
    assert lines[0].startswith('# python ')
    return list(csv.DictReader(lines[1:]))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return {name: importlib.import_module(name) for name in ('gpu_suite', 'gpu_common', 'chart')}


def test_rehearsal_runs_every_section_and_claims_nothing(
    tmp_path: Path, modules: dict[str, ModuleType]
) -> None:
    pytest.importorskip('segment_anything')
    pytest.importorskip('triton')
    path = tmp_path / 'gpu.csv'
    done = script('gpu_suite.py', '--dry-run', '--output', str(path))
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    rows = read(path)
    assert {row['section'] for row in rows} == set(modules['gpu_suite'].SECTIONS)
    assert all(float(row['value']) >= 0 for row in rows)
    bounded = [row for row in rows if row['bound']]
    assert {row['verdict'] for row in bounded} == {'not measured'}
    assert {row['section'] for row in bounded} == {
        'backbone', 'sam_encoder', 'dcnv3', 'kmeans', 'full_frame', 'compact', 'cameras', 'syncs'
    }  # fmt: skip
    assert '0 met, 0 missed' in done.stdout


def test_a_section_that_fails_is_recorded(
    monkeypatch: pytest.MonkeyPatch, modules: dict[str, ModuleType]
) -> None:
    suite, common = modules['gpu_suite'], modules['gpu_common']

    def fails(setting: object) -> list[object]:
        raise RuntimeError('no kernel image\nis available')

    monkeypatch.setitem(suite.SECTIONS, 'matmul', fails)
    (row,) = suite.run('matmul', common.Setting(True, 1))
    assert row['note'] == 'failed: no kernel image'
    assert row['verdict'] == 'not measured'


@pytest.mark.parametrize(
    ('value', 'bound', 'met'),
    [(30, '>= 30', True), (29.9, '>= 30', False), (15, '<= 15', True), (15.1, '<= 15', False)],
)
def test_bounds(value: float, bound: str, met: bool, modules: dict[str, ModuleType]) -> None:
    assert modules['gpu_common'].Row('x', value, 'ms', bound).met() == met


def test_without_a_gpu_the_suite_says_what_to_do() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    done = script('gpu_suite.py')
    assert done.returncode == 2
    assert '--dry-run' in done.stderr


def test_peers_run_and_agree(tmp_path: Path) -> None:
    pytest.importorskip('segment_anything')
    path = tmp_path / 'peers.csv'
    done = script('peers.py', '--quick', '--output', str(path))
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    rows = read(path)
    assert {row['section'] for row in rows} == {'sam', 'kmeans', 'windows', 'network', 'metrics'}
    assert all(float(row['ratio']) > 0 for row in rows)
    for row in rows:
        if row['difference']:
            assert float(row['difference']) < 2e-2, row


def test_chart_holds_every_ratio(tmp_path: Path, modules: dict[str, ModuleType]) -> None:
    files = {
        'peers': 'section,peer,ours,peer_ms,ours_ms,ratio,difference,note\n'
        'sam,segment-anything predict,S,4,2,2,0,5 <boxes>\nsam,broken,,,,,,failed: x\n',
        'uem_windows': 'network,way,ms,ratio\nsmall,official loop,4,1\nsmall,ours,3,1.5\n',
        'rows': 'profile,engine,device,size,cameras,ms_median,fps\n'
        'compact,eager,cpu,480x360,1,40,25\ncompact,onnxruntime,cpu,480x360,1,80,12.5\n',
        'gpu_suite': 'section,what,value,unit,bound,verdict,gpu\n'
        'a,fast,60,fps,>= 30,met,H\na,slow,30,ms,<= 15,missed,H\na,x,1,ms,<= 2,not measured,-\n',
        'other': 'set,ap\nx,1\n',
    }
    for name, text in files.items():
        (tmp_path / f'{name}.csv').write_text(f'# a command\n{text}', encoding='utf-8')
    bars = modules['chart'].collect(tmp_path)
    assert sorted(bar.ratio for bar in bars) == [0.5, 0.5, 1.5, 2, 2]
    root = ElementTree.fromstring(modules['chart'].draw(bars))
    boxes = [x for x in root if x.tag.endswith('rect')]
    assert sorted(x.get('class') for x in boxes) == ['faster'] * 3 + ['slower'] * 2
    assert all(float(x.get('width')) > 0 for x in boxes)
