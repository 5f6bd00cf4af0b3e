# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Progress bars and interruption of the commands that take a while."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

CONSOLE = Console(stderr=True)


@contextlib.contextmanager
def bar(text: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """Show a progress bar on stderr; the yielded function takes what is done so far."""
    columns = (
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=CONSOLE, transient=not CONSOLE.is_terminal) as progress:
        task = progress.add_task(text, total=total)
        yield lambda done: progress.update(task, completed=done)


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Event that Ctrl-C and SIGTERM set, so that a tool ends in order; restored afterwards."""
    stop = threading.Event()

    def ask(number: int, frame: Any) -> None:
        stop.set()

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fail(error: Exception) -> Any:
    """Say what is wrong and end with exit code 1."""
    import typer

    CONSOLE.print(f'[red]error[/red]: {error}', highlight=False, soft_wrap=True)
    return typer.Exit(1)
