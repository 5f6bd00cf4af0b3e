# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What the commands share: options, errors in one line, progress bars, interruption."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.core import TyperGroup

if TYPE_CHECKING:
    from ood_perception.bags.sources import Source

CONSOLE = Console(stderr=True, highlight=False)

OWN = ('ood_evaluation', 'ood_perception', 'ood_simulation', 'ood_training')
"""Packages whose RuntimeErrors are foreseen and end a command with one line."""

Device = Annotated[str, typer.Option(help='auto, cpu or cuda[:N].')]
IntensityRange = Annotated[
    str, typer.Option(help='LOW,HIGH of images of more than 8 bits; empty = estimated.')
]
ProfileName = Annotated[str, typer.Option(help='Name or path of a profile.')]
Topic = Annotated[str, typer.Option(help="Image topic of a bag; '' = the only one.")]
Storage = Annotated[str, typer.Option(help='mcap or sqlite3.')]


class Commands(TyperGroup):
    """Commands whose foreseeable errors end them with one line and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was called."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # typer ends quietly when nobody reads on
        except expected_errors() as error:
            raise fail(one_line(error)) from None
        except (ValueError, ImportError, RuntimeError) as error:
            # Of PyTorch or typer itself is what else is a RuntimeError.
            origin = type(error).__module__.partition('.')[0]
            if isinstance(error, RuntimeError) and origin not in OWN:
                raise
            raise fail(error) from None


def group(text: str) -> typer.Typer:
    """Begin a group of commands, of which `text` is the help."""
    return typer.Typer(cls=Commands, no_args_is_help=True, help=text)


def expected_errors() -> tuple[type[Exception], ...]:
    """Errors of the outer world: files, disks, data bases, names. Each becomes one line."""
    import sqlite3

    from safetensors import SafetensorError

    # Only what has loaded them can fail because of a name of ROS, or of a bag's data base.
    loaded = (
        ('rclpy.exceptions', 'NameValidationException'),
        ('rclpy._rclpy_pybind11', 'RCLError'),
        ('apsw', 'Error'),
    )
    more = [getattr(sys.modules[module], name) for module, name in loaded if module in sys.modules]
    return OSError, sqlite3.Error, SafetensorError, *more


def one_line(error: Exception) -> str:
    """What happened, and to which file."""
    if isinstance(error, OSError) and error.strerror:
        names = [str(n) for n in (error.filename, error.filename2) if n is not None]
        return ': '.join([*names, error.strerror])
    if type(error).__module__ == 'rclpy.exceptions':  # the name is on a line of its own
        return ' '.join(str(error).rstrip(' ^\n').split())
    if isinstance(error, ValueError):
        return str(error)
    text = f'{type(error).__name__}: {error}'.splitlines()[0]
    return text.partition(', at /')[0]  # the line of ROS's source


@contextlib.contextmanager
def bar(text: str, total: float | None) -> Iterator[Callable[[float], None]]:
    """Show a progress bar on stderr; the yielded function takes what is done so far."""
    columns = (
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=CONSOLE, transient=not CONSOLE.is_terminal) as progress:
        task = progress.add_task(escape(text), total=total)
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


def fail(error: Exception | str) -> Any:
    """Say what is wrong and end with exit code 1."""
    text = escape(printable(str(error)))
    CONSOLE.print(f'[red]error[/red]: {text}', soft_wrap=True)
    return typer.Exit(1)


def note(text: str) -> None:
    """Say something that is worth a look, on stderr."""
    line = f'[yellow]note[/yellow]: {escape(printable(text))}'
    CONSOLE.print(line, soft_wrap=True)


def printable(text: str) -> str:
    """Text whose file names may not be UTF-8, as it can be printed."""
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def told(source: Source, limit: int = 10) -> None:
    """List what of a source was not used, and why, and what was found out while reading it."""
    if source.skipped:
        note(f'{len(source.skipped)} left out:')
    for name, reason in source.skipped[:limit]:
        text = escape(printable(f'  {name}: {reason}'))
        CONSOLE.print(text, soft_wrap=True)
    if len(source.skipped) > limit:
        CONSOLE.print(f'  and {len(source.skipped) - limit} more')
    for text in source.notes:
        note(text)


def parse_size(text: str, empty: bool = False) -> tuple[int, int]:
    """
    Width and height of a text such as ``640x480``; with `empty`, (0, 0) of ''.

    Raises:
        typer.BadParameter: something else.
    """
    match = re.fullmatch(r'([1-9]\d*)[xX]([1-9]\d*)', text.strip())
    if not match and (text or not empty):
        raise typer.BadParameter(f'expected WIDTHxHEIGHT such as 640x480, got {text!r}')
    return (int(match[1]), int(match[2])) if match else (0, 0)


def parse_range(text: str) -> tuple[float, float] | None:
    """
    Low and high of a text such as ``7600,8600``; '' = None.

    Raises:
        typer.BadParameter: something else.
    """
    if not text:
        return None
    try:
        low, high = (float(part) for part in text.split(','))
        if low < high:
            return low, high
    except ValueError:
        pass
    raise typer.BadParameter(f'expected LOW,HIGH with LOW below HIGH, got {text!r}')
