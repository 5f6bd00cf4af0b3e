# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood site`: merge memories of several robots; list and take back what was said of objects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ood_perception.cli.progress import CONSOLE, fail

app = typer.Typer(no_args_is_help=True, help='Memories of a site, and what was said of objects.')

Folder = Annotated[Path, typer.Argument(help="The node's site_folder.")]


@app.command()
def merge(
    memories: Annotated[list[Path], typer.Argument(help='Files of `ood learn-normal`.')],
    output: Annotated[Path, typer.Option('--out', help='File of the merged memory.')],
    capacity: Annotated[int, typer.Option(help='Most tokens kept.', min=2)] = 1024,
) -> None:
    """Make one memory of those of several robots with the same profile."""
    from ood_perception.scores.tokens import TokenBank

    try:
        first, *others = [TokenBank.read(str(path), capacity) for path in memories]
        for other in others:
            first.merge(other)
        first.save(str(output))
    except ValueError as error:
        raise fail(error) from None
    CONSOLE.print(f'{first.frames} frames, {len(first)} tokens kept in {output}')


@app.command('list')
def list_entries(folder: Folder) -> None:
    """List the objects that were accepted as normal or reported as real."""
    from ood_perception.site_folder import names

    for name in (found := names(folder)):
        CONSOLE.print(f'{name}  {folder / "images" / name}.png', soft_wrap=True)
    CONSOLE.print(f'{len(found)} entries in {folder}', soft_wrap=True)


@app.command()
def undo(folder: Folder, name: Annotated[str, typer.Argument(help='As `list` tells it.')]) -> None:
    """Take one back; the node heeds it when it is configured next."""
    from ood_perception import site_folder

    try:
        site_folder.undo(folder, name)
    except ValueError as error:
        raise fail(error) from None
    CONSOLE.print(f'{name} is taken back', soft_wrap=True)
