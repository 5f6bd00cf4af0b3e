# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Exports say the same as eager."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ood_perception.engines.export import export
from ood_perception.models import create_model

from small_models import SmallSegmentor


@pytest.mark.slow
def test_export_of_the_compact_network_equals_eager(tmp_path: Path) -> None:
    """Every time `test_onnx` looks at its graph."""
    pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    path = tmp_path / 'compact.onnx'
    assert export(create_model('compact'), (64, 96), path, 'onnx') < 1e-3
    assert path.stat().st_size > 0


def test_an_onnx_file_equals_eager(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')
    path = tmp_path / 'small.onnx'
    assert export(SmallSegmentor(), (32, 48), path, 'onnx') < 1e-4
    assert path.stat().st_size > 0


def test_a_program_of_torch_export_equals_eager(tmp_path: Path) -> None:
    path = tmp_path / 'small.pt2'
    assert export(SmallSegmentor(), (32, 48), path, 'pt2') < 1e-4
    assert path.stat().st_size > 0


def test_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='exe'):
        export(create_model('compact'), (64, 64), tmp_path / 'x', 'exe')
