# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ood_perception import host_cpu


def test_helpers_spin_briefly_unless_the_environment_says_otherwise(monkeypatch) -> None:
    for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('OMP_WAIT_POLICY', 'passive')
    host_cpu.spin_briefly()
    assert 'GOMP_SPINCOUNT' not in os.environ
    monkeypatch.delenv('OMP_WAIT_POLICY')
    monkeypatch.setenv('GOMP_SPINCOUNT', '7')
    host_cpu.spin_briefly()
    assert os.environ['GOMP_SPINCOUNT'] == '7'
    monkeypatch.delenv('GOMP_SPINCOUNT')
    host_cpu.spin_briefly()
    assert os.environ['GOMP_SPINCOUNT'] == host_cpu.SPIN


@pytest.mark.parametrize('module', ['ood_perception.cli.main', 'ood_perception.ros.main'])
def test_entry_points_are_there_before_torch(module: str) -> None:
    """OpenMP reads its environment when torch is imported, so the entry points must not do it."""
    if '.ros.' in module:
        pytest.importorskip('rclpy')
    code = f'import sys, {module}; assert "torch" not in sys.modules'
    subprocess.run([sys.executable, '-c', code], check=True)


V4 = 'avx512f avx512bw avx512vl avx512dq'


@pytest.mark.parametrize(
    ('flags', 'isa', 'wanted'),
    [
        (
            f'avx2 {V4} avx512_vnni amx_bf16 amx_tile amx_int8',
            '',
            ['avx2', 'avx512', 'vnni', 'amx'],
        ),
        (
            f'avx2 {V4} avx512_vnni amx_bf16 amx_int8',
            'AVX512_CORE_VNNI',
            ['avx2', 'avx512', 'vnni'],
        ),
        (f'avx2 {V4} avx512_vnni amx_bf16 amx_int8', 'avx2', ['avx2']),
        ('avx2 avx_vnni', '', ['avx2']),
        ('sse4_2 not_avx2', '', []),
        ('', '', []),
    ],
)
def test_what_the_cpu_has(monkeypatch, flags: str, isa: str, wanted: list[str]) -> None:
    monkeypatch.setattr(host_cpu, 'cpuinfo', lambda key: flags)
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', isa)
    assert host_cpu.instruction_sets() == wanted
    assert host_cpu.has_bfloat16_tiles() is ('amx' in wanted)


def test_a_process_can_be_held_to_what_the_cpu_has(monkeypatch) -> None:
    monkeypatch.delenv('ONEDNN_MAX_CPU_ISA', raising=False)
    monkeypatch.setattr(host_cpu, 'cpuinfo', lambda key: f'avx2 {V4}')
    assert host_cpu.held_to('avx2')['ONEDNN_MAX_CPU_ISA'] == 'AVX2'
    with pytest.raises(ValueError, match='no amx, only avx2, avx512'):
        host_cpu.held_to('amx')
    with pytest.raises(ValueError, match="got 'sse'"):
        host_cpu.held_to('sse')


def test_tuning_can_be_switched_off(monkeypatch) -> None:
    from ood_perception.host_memory import keep_freed_memory

    for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('OOD_UNTUNED', '1')
    host_cpu.spin_briefly()
    assert 'GOMP_SPINCOUNT' not in os.environ
    assert keep_freed_memory() is False
