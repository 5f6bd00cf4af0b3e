# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of kept networks and choices, a new one for each test."""
    folder = tmp_path_factory.mktemp('cache')
    monkeypatch.setenv('OOD_ENGINE_CACHE', str(folder))
    return folder


@pytest.fixture(scope='session', autouse=True)
def operators() -> Iterator[None]:
    """Let PyTorch gather the operators that it exports to ONNX once: a second for each network."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # another version of PyTorch
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(ONNXRegistry.from_torchlib)
        patch.setattr(ONNXRegistry, 'from_torchlib', staticmethod(once))
        yield
