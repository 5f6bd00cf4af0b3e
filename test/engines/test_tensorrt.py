# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""TensorRT where no GPU is: what is said without its libraries, and what they build with them."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ood_perception.engines.export import (
    MODULES,
    TupleOutput,
    build_engine,
    export,
    export_onnx,
    target,
)
from ood_perception.engines.tensorrt import in_precision
from ood_perception.models import create_model

from small_models import UEM, SmallSegmentor

INSTALLED = any(importlib.util.find_spec(name) for name in MODULES)
needs_rtx = pytest.mark.skipif(not INSTALLED, reason='needs TensorRT for RTX: make tensorrt')


@pytest.mark.skipif(INSTALLED, reason='TensorRT for RTX is here')
def test_a_missing_library_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r'pip install "ood_perception\[rtx\]"'):
        export(SmallSegmentor(), (32, 48), tmp_path / 'x', 'tensorrt-rtx', 'sm_89')


@pytest.mark.parametrize(('kind', 'gpu'), [('tensorrt-rtx', ''), ('onnx', 'sm_89')])
def test_an_engine_is_for_a_gpu_and_nothing_else_is(kind: str, gpu: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='--for sm_89'):
        export(SmallSegmentor(), (32, 48), tmp_path / 'x', kind, gpu)


@needs_rtx
@pytest.mark.parametrize('gpu', ['sm_75', 'sm_89', 'sm_120'])
def test_an_engine_for_a_gpu_that_is_not_here(gpu: str, tmp_path: Path) -> None:
    path = tmp_path / 'small.engine'
    assert export(SmallSegmentor(), (32, 48), path, 'tensorrt-rtx', gpu) < 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ['small.engine']
    assert path.stat().st_size > 1000


@needs_rtx
@pytest.mark.parametrize('gpu', ['sm_87', '89', 'none', 'H200'])
def test_a_gpu_that_is_not_built_for_is_named_with_those_that_are(gpu: str) -> None:
    with pytest.raises(ValueError, match=f'sm_80.*{gpu}.*trtexec'):
        target(gpu)


@needs_rtx
def test_a_file_that_is_cut_off_leaves_no_engine(tmp_path: Path) -> None:
    source = tmp_path / 'model.onnx'
    export_onnx(TupleOutput(SmallSegmentor().eval(), False), torch.zeros(1, 3, 32, 48), source)
    source.write_bytes(source.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r'cannot read .*model\.onnx'):
        build_engine(source, tmp_path / 'x', target('sm_89'))
    assert [file.name for file in tmp_path.iterdir()] == ['model.onnx']


@torch.no_grad()
def test_a_half_copy_keeps_what_must_be_exact() -> None:
    torch.manual_seed(0)
    model = create_model('uem_gg', **UEM)
    half = in_precision(model, torch.float16)
    kinds = {name: value.dtype for name, value in half.named_parameters()}
    kept = {name for name, dtype in kinds.items() if dtype == torch.float32}
    heads = ('segmentor.segmentation_head.', 'ood_head.')
    assert kept == {name for name in kinds if name.startswith(heads)}
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    images = torch.randn(1, 3, 56, 84)
    want, got = model(images), half(images.half())
    for a, b in ((got.logits, want.logits), (got.ood, want.ood)):
        assert a.dtype == torch.float16
        assert float((a.float() - b).abs().max()) < 0.02 * float(b.abs().max())


@pytest.mark.skipif(
    not importlib.util.find_spec('torch_tensorrt'), reason='needs torch-tensorrt: make tensorrt'
)
def test_the_compact_network_becomes_one_engine(tmp_path: Path) -> None:
    # a process of its own, which pretends a GPU before it imports torch-tensorrt
    table = tmp_path / 'table.csv'
    script = Path(__file__).parents[2] / 'benchmarks' / 'tensorrt_build.py'
    command = [sys.executable, str(script), '--networks', 'compact', '--output', str(table)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    with table.open(newline='') as file:
        (row,) = csv.DictReader(file)
    assert row['operators'] == row['supported']
    assert row['engines'] == '1'
    assert row['trouble'] == row['in_torch'] == ''
    assert float(row['megabytes']) > 10
