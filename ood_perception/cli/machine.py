# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A profile on this machine: `ood bench` times it, `ood export` writes it, `ood doctor` checks."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ood_perception.cli.common import Device, ProfileName, parse_size

if TYPE_CHECKING:
    from ood_evaluation.speed import Row

STAGES = ('upload', 'segmentor', 'score', 'prompts', 'masks', 'download')


def bench(
    profile: ProfileName = 'compact',
    device: Device = 'auto',
    engines: Annotated[
        str, typer.Option(help='Engines, by commas; auto:2 has two frames in work at once.')
    ] = 'eager,auto',
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

    from ood_evaluation.speed import measure, write_rows
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
        several = [
            Pipeline.from_profile(profile, device, name.partition(':')[0], in_flight=at_once(name))
            for name in wanted
        ]
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


def at_once(engine: str) -> int:
    """Frames in work at once that an entry of --engines asks for. Raises typer.BadParameter."""
    count = engine.partition(':')[2] or '1'
    if not count.isdecimal() or not int(count):
        text = f'expected NAME or NAME:COUNT, got {engine!r}'
        raise typer.BadParameter(text, param_hint='--engines')
    return int(count)


def tables(rows: Sequence[Row], names: Sequence[str], profile: str) -> list[Any]:
    """
    Two tables of at most 80 columns: whole frames, and the same by stage.

    Args:
        names: of the engines as they were asked for, one a row.
    """
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
            f'{row.fps / base.fps:.2f}x',
            f'{row.memory_mb:.0f}',
        )
        stages.add_row(engine, row.size, *(f'{row.stages.get(stage, 0):.1f}' for stage in STAGES))
    return [whole, stages]


def export(
    path: Annotated[Path, typer.Argument(help='File to write.')],
    profile: ProfileName = 'compact',
    format: Annotated[
        str, typer.Option(help='onnx, pt2 (torch.export) or tensorrt-rtx (an engine for a GPU).')
    ] = 'onnx',
    gpu: Annotated[
        str, typer.Option('--for', help='GPU of a tensorrt-rtx engine: sm_89, ..., current.')
    ] = '',
    size: Annotated[str, typer.Option(help='WIDTHxHEIGHT of the camera frames.')] = '640x480',
    tolerance: Annotated[float, typer.Option(help='Largest relative difference to eager.')] = 1e-3,
) -> None:
    """Export the network of a profile and check the export against eager."""
    from ood_perception.building import image_size, load_segmentor
    from ood_perception.engines.export import export as export_model
    from ood_perception.profile import Profile

    loaded = Profile.load(profile)
    segmentor = load_segmentor(loaded)
    width, height = parse_size(size)
    shape = image_size(loaded, segmentor, height, width)
    gap = export_model(segmentor, shape, path, format, gpu)
    what = 'the ONNX that it is built from differs' if gpu else 'differs'
    typer.echo(f'{path}: {path.stat().st_size / 2**20:.1f} MB, {what} from eager by {gap:.1e}')
    if gap > tolerance:
        typer.echo(f'that is more than the tolerance {tolerance:.1e}', err=True)
        raise typer.Exit(1)


def doctor(
    profile: Annotated[str, typer.Option(help='Profile that will run.')] = 'compact',
    size: Annotated[str, typer.Option(help="The camera's WIDTHxHEIGHT.")] = '1280x720',
    rate: Annotated[float, typer.Option(help="The camera's frames per second.")] = 30.0,
    seconds: Annotated[float, typer.Option(help='Length of the transport test, 0 = none.')] = 3.0,
    quick: Annotated[bool, typer.Option(help='Only look; try no engine and no import.')] = False,
    as_json: Annotated[bool, typer.Option('--json', help='Print JSON.')] = False,
) -> None:
    """Check versions, device, engines, ROS, transport, clock, weights; exit 1 if one is broken."""
    from ood_perception.diagnosis import ERROR, OK, cheap_checks, thorough_checks

    width, height = parse_size(size)
    findings = cheap_checks(profile, width * height * 3)
    if not quick:
        findings += thorough_checks(profile, (height, width))
    ros = not any(f.name == 'ros' and f.level == ERROR for f in findings)
    if seconds > 0 and ros:
        from ood_perception.ros.tools.self_test import transport_finding

        findings.append(transport_finding(width, height, rate, seconds))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(f) for f in findings], indent=2))
    else:
        console = Console(highlight=False)
        marks = {'ok': '[green]ok   [/green]', 'warn': '[yellow]warn [/yellow]'}
        for finding in findings:
            mark = marks.get(finding.level, '[red]error[/red]')
            console.print(f'{mark} [bold]{finding.name}[/bold]: {finding.text}')
            if finding.remedy:
                console.print(f'        -> {finding.remedy}')
        bad = sum(f.level != OK for f in findings)
        console.print(f'{len(findings)} checks, {bad} to look at')
    raise typer.Exit(1 if any(f.level == ERROR for f in findings) else 0)
