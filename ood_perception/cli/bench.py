# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood bench`: how fast a profile runs on this machine, engine by engine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ood_perception.cli.options import Device, ProfileName

if TYPE_CHECKING:
    from ood_perception.evaluation.speed import Row

STAGES = ('upload', 'segmentor', 'score', 'prompts', 'masks', 'download')


def bench(
    profile: ProfileName = 'compact',
    device: Device = 'auto',
    engines: Annotated[str, typer.Option(help='Engines, separated by commas.')] = 'eager,auto',
    sizes: Annotated[str, typer.Option(help='Frame sizes WIDTHxHEIGHT, by commas.')] = '480x360',
    cameras: Annotated[str, typer.Option(help='Cameras in a batch, by commas.')] = '1',
    runs: Annotated[int, typer.Option(help='Timed batches of each case.', min=1)] = 30,
    isa: Annotated[
        str, typer.Option(help='Hold the CPU to avx2, avx512, vnni or amx, in a new process.')
    ] = '',
    seed: Annotated[int, typer.Option(help='Seed of the rendered drive.')] = 1000,
    output: Annotated[Path | None, typer.Option(help='CSV file to append the rows to.')] = None,
) -> None:
    """Time a profile on rendered frames: medians, p95, stages, memory, ratios to the first."""
    from ood_perception import host_cpu

    if isa:
        try:
            limits = host_cpu.held_to(isa)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint='--isa') from error
        if any(os.environ.get(name) != value for name, value in limits.items()):
            # the libraries read their limits once, when they are loaded
            command = [sys.executable, '-m', 'ood_perception.cli.main', *sys.argv[1:]]
            done = subprocess.run(command, env={**os.environ, **limits}, check=False)
            raise typer.Exit(done.returncode)
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from ood_perception.cli.progress import fail, parse_size
    from ood_perception.evaluation.speed import measure, write_rows
    from ood_perception.pipeline import Pipeline
    from ood_simulation.proving_ground import ProvingGround

    console = Console()
    counts = cameras.split(',')
    if not all(count.strip().isdecimal() and int(count) for count in counts):
        text = f'expected numbers of 1 or more by commas, got {cameras!r}'
        raise typer.BadParameter(text, param_hint='--cameras')
    cases = [(size, int(count)) for size in sizes.split(',') for count in counts]
    rows: list[Row] = []
    wanted = engines.split(',')
    for size, count in track(cases, description='Measuring', console=console):
        width, height = parse_size(size)
        ground = ProvingGround(seed=seed, width=width, height=height)
        frames = [np.ascontiguousarray(ground.frame(i * 5).image) for i in range(20)]
        try:
            several = [Pipeline.from_profile(profile, device, name) for name in wanted]
        except (ValueError, ImportError) as error:
            raise fail(error) from None
        rows += measure(several, frames, count, runs)
        for name, pipeline in zip(wanted, several, strict=True):
            for line in (f'{name}: {pipeline.engine.why}', *pipeline.notes):
                console.print(line, style='dim')
            pipeline.close()
    for table in tables(rows, wanted * len(cases), profile):
        console.print(table)
    sets = ', '.join(host_cpu.instruction_sets()) or 'unknown'
    console.print(rows[0].device)
    console.print(f'instruction sets: {sets}' + (f' (held to {isa})' if isa else ''))
    console.print(f'ratio: how many times faster than {wanted[0]}')
    if output is not None:
        write_rows(output, rows, 'ood ' + shlex.join(sys.argv[1:]))
        console.print(f'{len(rows)} rows appended to {output}')


def tables(rows: Sequence[Row], names: Sequence[str], profile: str) -> list[Any]:
    """
    Two tables of at most 80 columns: whole frames, and the same by stage.

    Args:
        names: of the engines as they were asked for, one a row.
    """
    from rich.table import Table

    plain: dict[str, Any] = {'box': None, 'padding': (0, 1, 0, 0), 'title_justify': 'left'}
    whole = Table(title=f'\n{profile}: milliseconds a batch (median)', **plain)
    stages = Table(title='\nmilliseconds by stage (median)', **plain)
    whole_head = ('engine', 'size', 'cameras', 'ms', 'p95', 'frames/s', 'ratio', 'MB')
    for table, head in ((whole, whole_head), (stages, ('engine', 'size', *STAGES))):
        for name in head:
            table.add_column(name, justify='left' if name in ('engine', 'size') else 'right')
    first: dict[tuple[str, int], Row] = {}
    for row, name in zip(rows, names, strict=True):
        base = first.setdefault((row.size, row.cameras), row)
        engine = row.engine if name == row.engine else f'{name}: {row.engine}'
        whole.add_row(
            engine,
            row.size,
            str(row.cameras),
            f'{row.ms_median:.1f}',
            f'{row.ms_p95:.1f}',
            f'{row.fps:.1f}',
            f'{base.ms_median / row.ms_median:.2f}x',
            f'{row.memory_mb:.0f}',
        )
        stages.add_row(engine, row.size, *(f'{row.stages.get(stage, 0):.1f}' for stage in STAGES))
    return [whole, stages]
