# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood weights`: list, fetch, check and convert the official weight files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import progress
from rich.console import Console

from ood_perception.cli.common import group

if TYPE_CHECKING:
    from ood_perception.checkpoints.store import Entry

app = group('List, fetch, check and convert weight files.')


@app.command('list')
def list_weights(
    verbose: Annotated[
        bool, typer.Option('-v', help='Also model, profiles and addresses.')
    ] = False,
    match: Annotated[str, typer.Argument(help='Only names that contain this.')] = '',
) -> None:
    """List the official files: name, origin, licence, size, what for, published numbers."""
    from ood_perception.checkpoints.store import cache_folder, cached_path, catalogue
    from ood_perception.profile import Profile, profile_names

    users: dict[str, list[str]] = {}
    for profile in profile_names():
        for name in Profile.load(profile).weight_names():
            users.setdefault(name, []).append(profile)
    console = Console(highlight=False, soft_wrap=True)
    for entry in catalogue().values():
        if match not in entry.name:
            continue
        here = cached_path(entry)
        mark = ' [green]here[/green]' if here else ''
        console.print(f'[bold]{entry.name}[/bold]  {entry.origin}, {entry.megabytes} MB{mark}')
        console.print(f'  {entry.purpose}')
        if entry.published:
            console.print(f'  {entry.published}')
        console.print(f'  licence: {entry.licence}')
        if verbose:
            console.print(f'  model: {entry.model or "of another library"} {entry.options or ""}')
            console.print(f'  profiles: {", ".join(users.get(entry.name, ())) or "none"}')
            console.print(f'  from: {entry.url or entry.page}')
            console.print(f'  here: {here or "no"}')
    console.print(f'Files live in {cache_folder()}; sizes are about, without training state.')


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help='Names of `ood weights list`, or profiles.')],
    source: Annotated[
        str, typer.Option('--from', help='Folder with the files, or one file: no network.')
    ] = '',
) -> None:
    """Bring files to the cache; an interrupted download goes on where it stopped."""
    from ood_perception.checkpoints import fetching

    entries = [entry for name in names for entry in _entries(name)]
    if source and len(entries) > 1 and not Path(source).expanduser().is_dir():
        raise ValueError(
            f'--from {source}: expected a folder with {", ".join(e.file for e in entries)}'
        )
    missing: list[str] = []
    amount = progress.DownloadColumn(), progress.TransferSpeedColumn()
    columns = progress.TextColumn('{task.description}'), progress.BarColumn(), *amount
    with progress.Progress(*columns, progress.TimeRemainingColumn()) as bar:
        for entry in entries:
            task = bar.add_task(entry.name, total=None)

            def show(done: int, total: int, task: int = task) -> None:
                bar.update(task, completed=done, total=total or None)  # type: ignore[arg-type]

            try:
                path = fetching.fetch(entry, source or None, show)
            except (OSError, ValueError) as error:
                bar.remove_task(task)  # type: ignore[arg-type]
                missing.append(str(error))
                continue
            checked = 'sha256 as published' if entry.sha256 or entry.sha256_prefix else ''
            bar.console.print(f'{entry.name}: {path} {checked}', soft_wrap=True)
            bar.console.print(f'  licence: {entry.licence}', soft_wrap=True)
    if missing:
        raise ValueError('\nerror: '.join(missing))


def _entries(name: str) -> list[Entry]:
    """Files by a name of the catalogue, or those that a profile's stages name."""
    from ood_perception.checkpoints.store import catalogue, find_entry
    from ood_perception.profile import Profile, profile_names

    if name in catalogue() or name not in profile_names():
        return [find_entry(name, profile_names())]
    files = Profile.load(name).weight_names()
    entries = [catalogue()[file] for file in files if file in catalogue()]
    if not entries:
        raise ValueError(f'{name}: nothing to fetch, its weights come with the package')
    return entries


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help='Weight file.')],
    model: Annotated[str, typer.Option(help='Model that it is meant for.')] = '',
) -> None:
    """Say what a file is and whether it fits a model, without running anything in it."""
    from ood_perception.checkpoints import read_checkpoint
    from ood_perception.checkpoints.loading import match
    from ood_perception.checkpoints.store import catalogue, sha256_of, wrong_sha256
    from ood_training.converting import build_network, identify

    state = read_checkpoint(file)
    count = sum(value.numel() for value in state.values())
    typer.echo(f'{file}: {len(state)} tensors, {count:,} values, sha256 {sha256_of(file)}')
    for entry in catalogue().values():
        if entry.file == file.name:
            typer.echo(f'named like {entry.name}: {entry.purpose}; {entry.licence}')
            if wrong := wrong_sha256(entry, file):
                raise ValueError(wrong)
    floats = {n: v for n, v in state.items() if v.is_floating_point()}
    bad = [name for name, value in floats.items() if not value.isfinite().all()]
    if bad:
        raise ValueError(f'{file}: {bad[0]} holds values that are not finite')
    name = model or identify(state, str(file))
    _, report = match(build_network(name), state, name=str(file))
    typer.echo(f'fits {name}: {report}')


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help='Official weight file.')],
    target: Annotated[
        Path | None, typer.Argument(help='.safetensors to write; default beside the file.')
    ] = None,
    model: Annotated[str, typer.Option(help='Model that it is for; found out if not given.')] = '',
    half: Annotated[bool, typer.Option(help='Store in half precision.')] = False,
) -> None:
    """Write what inference needs as safetensors: no queue, no optimizer, no pickle."""
    from ood_training.converting import convert_file

    target = target or file.with_suffix('.safetensors')
    report = convert_file(file, target, model, half)
    typer.echo(f'{target}: {target.stat().st_size >> 20} MB; {report}')
