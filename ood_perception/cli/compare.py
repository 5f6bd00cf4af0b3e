# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood compare`: several evaluated runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help='Folders or report.json of runs.')],
    output: Annotated[Path, typer.Option(help='Report to write.')] = Path('comparison.html'),
) -> None:
    """Put evaluated runs into one table and one report."""
    from rich.console import Console
    from rich.table import Table

    from ood_perception.cli.progress import fail
    from ood_perception.evaluation.report import read_numbers, summary_rows, write_report

    try:
        if len(runs) < 2:
            raise ValueError(f'runs: expected two or more, got {len(runs)}')
        found = []
        for path in runs:
            for run in read_numbers(path):
                # The same profile in two folders needs two names.
                run.name = f'{run.name} ({path.stem if path.suffix else path.name})'
                found.append(run)
    except ValueError as error:
        raise fail(error) from None
    table = Table('figure', *(run.name for run in found))
    for key, values in summary_rows(found):
        table.add_row(key, *values)
    Console().print(table)
    write_report(output, found, 'Unknown objects: comparison of runs')
    typer.echo(f'report: {output}')
