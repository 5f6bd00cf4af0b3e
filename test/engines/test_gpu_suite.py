# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The suite that measures a GPU, rehearsed: a session with a GPU is too short to mend it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).resolve().parents[2] / 'benchmarks' / 'gpu_suite.py'


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_section_runs_on_the_cpu(tmp_path):
    table = tmp_path / 'rehearsal.csv'
    done = subprocess.run(
        [sys.executable, str(SUITE), '--dry-run', '--output', str(table)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert 'sections failed: []' in done.stdout
    assert 'failed' not in done.stdout.replace('sections failed', '')
    assert 'could not' not in done.stderr, done.stderr[-2000:]
    assert len(table.read_text().splitlines()) > 20
