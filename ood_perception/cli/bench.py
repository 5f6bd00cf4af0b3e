# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood bench`: how fast a profile runs on this machine, engine by engine."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def bench(
    profile: Annotated[str, typer.Option(help='Name or path of a profile.')] = 'compact',
    device: Annotated[str, typer.Option(help='auto, cpu or cuda[:N].')] = 'auto',
    engines: Annotated[str, typer.Option(help='Engines, separated by commas.')] = 'eager,auto',
    sizes: Annotated[str, typer.Option(help='Frame sizes WIDTHxHEIGHT, by commas.')] = '480x360',
    cameras: Annotated[str, typer.Option(help='Cameras in a batch, by commas.')] = '1',
    runs: Annotated[int, typer.Option(help='Timed batches of each case.', min=1)] = 30,
    seed: Annotated[int, typer.Option(help='Seed of the rendered drive.')] = 1000,
    output: Annotated[Path | None, typer.Option(help='CSV file to append the rows to.')] = None,
) -> None:
    """Time a profile on rendered frames: medians, p95, stages, memory, ratios to the first."""
    import numpy as np
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from ood_perception.cli.progress import parse_size
    from ood_perception.evaluation.speed import Row, measure, write_rows
    from ood_perception.pipeline import Pipeline
    from ood_perception.simulation.proving_ground import ProvingGround

    console = Console()
    table = Table(title=f'{profile}: milliseconds a batch (median), by stage')
    columns = ('upload', 'segmentor', 'score', 'prompts', 'masks', 'download')
    head = ('engine', 'size', 'cameras', 'ms', 'p95', 'frames/s', 'ratio', 'MB', *columns)
    for name in head:
        table.add_column(name, justify='left' if name in ('engine', 'size') else 'right')
    cases = [
        (size, int(count), engine)
        for size in sizes.split(',')
        for count in cameras.split(',')
        for engine in engines.split(',')
    ]
    rows: list[Row] = []
    first: dict[tuple[str, int], Row] = {}
    for size, count, engine in track(cases, description='Measuring', console=console):
        width, height = parse_size(size)
        ground = ProvingGround(seed=seed, width=width, height=height)
        frames = [np.ascontiguousarray(ground.frame(i * 5).image) for i in range(20)]
        pipeline = Pipeline.from_profile(profile, device, engine)
        row = measure(pipeline, frames, count, runs)
        for line in (getattr(pipeline.engine, 'why', ''), *pipeline.notes):
            if line:
                console.print(line, style='dim')
        pipeline.close()
        rows.append(row)
        base = first.setdefault((size, count), row)
        table.add_row(
            f'{engine} ({row.engine})' if engine != row.engine else engine,
            size,
            str(count),
            f'{row.ms_median:.1f}',
            f'{row.ms_p95:.1f}',
            f'{row.fps:.1f}',
            f'{base.ms_median / row.ms_median:.2f}x',
            f'{row.memory_mb:.0f}',
            *(f'{row.stages.get(name, 0):.1f}' for name in columns),
        )
    console.print(table)
    console.print(f'{rows[0].device}; ratio: how many times faster than {engines.split(",")[0]}')
    if output is not None:
        write_rows(output, rows, 'ood ' + shlex.join(sys.argv[1:]))
        console.print(f'{len(rows)} rows appended to {output}')
