# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood doctor`: what is wrong with this installation and what to do about it."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer


def doctor(
    profile: Annotated[str, typer.Option(help='Profile that will run.')] = 'compact',
    size: Annotated[str, typer.Option(help="The camera's WIDTHxHEIGHT.")] = '1280x720',
    rate: Annotated[float, typer.Option(help="The camera's frames per second.")] = 30.0,
    seconds: Annotated[float, typer.Option(help='Length of the transport test, 0 = none.')] = 3.0,
    quick: Annotated[bool, typer.Option(help='Only look; try no engine and no import.')] = False,
    as_json: Annotated[bool, typer.Option('--json', help='Print JSON.')] = False,
) -> None:
    """Check versions, device, engines, ROS, transport, clock, weights; exit 1 if one is broken."""
    from ood_perception.cli.progress import parse_size
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
        from rich.console import Console

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
