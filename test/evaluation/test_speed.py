# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Measuring a real pipeline."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np

from ood_evaluation.speed import measure, write_rows
from ood_perception.pipeline import Pipeline
from ood_perception.profile import ImageConfig, Profile


def test_rows_of_a_real_pipeline(tmp_path: Path) -> None:
    small = dataclasses.replace(Profile.load('compact'), image=ImageConfig(96))
    pipelines = [Pipeline.from_profile(small, 'cpu', 'eager') for _ in range(2)]
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    rows = measure(pipelines, [frame], cameras=2, runs=2, warm_up=1)
    assert len(rows) == 2
    row = rows[0]
    assert (row.engine, row.size, row.cameras, row.precision) == ('eager', '64x48', 2, 'float32')
    assert 0 < row.ms_median <= row.ms_p95
    assert row.memory_mb > 0
    assert {'upload', 'segmentor', 'score', 'download'} <= set(row.stages)
    path = tmp_path / 'new' / 'rows.csv'
    write_rows(path, [row], 'a command')
    write_rows(path, [row], 'another command')
    lines = path.read_text(encoding='utf-8').splitlines()
    assert lines[0].startswith('# a command (torch ')
    read = list(csv.DictReader(lines[1:]))
    assert len(read) == 2
    assert float(read[0]['ms_median']) == row.ms_median
    assert float(read[1]['segmentor_ms']) == row.stages['segmentor']


def test_tables_fit_a_terminal_of_80_columns() -> None:
    from rich.console import Console

    from ood_evaluation.speed import Row
    from ood_perception.cli.machine import STAGES, tables

    stages = dict.fromkeys(STAGES, 1234.5)
    rows = [
        Row('p', engine, 'cpu', 'avx2', 'int8', '1920x1080', 4, 1234.5, 2345.6, 17.3, 1234, stages)
        for engine in ('eager', 'openvino_int8')
    ]
    console = Console(width=80, record=True, file=io.StringIO())
    for table in tables(rows, ['eager', 'auto'], 'compact'):
        console.print(table)
    text = console.export_text()
    for word in ('auto: openvino_int8', '1920x1080', '1234.5', '1.00x', 'frames/s', *STAGES):
        assert word in text, text
    assert '…' not in text
