# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of kept networks and choices, a new one for each test."""
    folder = tmp_path_factory.mktemp('cache')
    monkeypatch.setenv('OOD_ENGINE_CACHE', str(folder))
    return folder
