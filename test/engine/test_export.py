# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Exports say the same as eager."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ood_perception.engine.export import export
from ood_perception.models import create_model

from small_models import SmallSegmentor


@pytest.mark.parametrize('kind', ['onnx'])
def test_export_of_the_compact_network_equals_eager(kind: str, tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime')
    torch.manual_seed(0)
    model = create_model('compact')
    path = tmp_path / 'compact.onnx'
    assert export(model, (64, 96), path, kind) < 1e-3
    assert path.stat().st_size > 0


@pytest.mark.skipif(shutil.which('g++') is None, reason='AOTInductor needs a C++ compiler')
def test_aoti_package_equals_eager(tmp_path: Path) -> None:
    path = tmp_path / 'small.pt2'
    assert export(SmallSegmentor(), (32, 48), path, 'aoti') < 1e-4
    assert path.stat().st_size > 0


def test_unknown_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='exe'):
        export(create_model('compact'), (64, 64), tmp_path / 'x', 'exe')
