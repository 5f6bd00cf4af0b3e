# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The command `ood`; `COMMANDS` lists its commands."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ood_perception import __version__
from ood_perception.cli.common import Commands
from ood_perception.host_cpu import spin_briefly
from ood_perception.host_memory import keep_freed_memory

COMMANDS = {
    'demo': ('demo', 'demo'),
    'run': ('run', 'run'),
    'camera': ('camera', 'camera'),
    'view': ('camera', 'view'),
    'play': ('bag', 'play'),
    'record': ('bag', 'record'),
    'drive': ('bag', 'drive'),
    'weights': ('weights', 'app'),
    'train': ('train', 'app'),
    'evaluate': ('evaluate', 'app'),
    'compare': ('evaluate', 'compare'),
    'learn-normal': ('site', 'learn_normal'),
    'calibrate-site': ('site', 'calibrate_site'),
    'site': ('site', 'app'),
    'bench': ('machine', 'bench'),
    'export': ('machine', 'export'),
    'doctor': ('machine', 'doctor'),
}
"""Command -> (module of ood_perception.cli, function or typer.Typer in it)."""


def build(only: str | None = None) -> typer.Typer:
    """Put the commands together; with `only`, import just the one that is called."""
    app = typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help='Find, score and outline objects that no one taught the robot.',
    )
    app.callback()(_common)
    names = [only] if only in COMMANDS else [] if only == '--version' else list(COMMANDS)
    for name in names:
        module, attribute = COMMANDS[name]
        command = getattr(importlib.import_module(f'ood_perception.cli.{module}'), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f'ood_perception {__version__}')
        raise typer.Exit()


def _common(
    version: Annotated[
        bool,
        typer.Option(
            '--version', callback=_tell_version, is_eager=True, help='Print the version and exit.'
        ),
    ] = False,
) -> None:
    pass


def without_ros_arguments(arguments: Sequence[str]) -> list[str]:
    """
    Leave out what stands between ``--ros-args`` and ``--`` or the end.

    Launch files append it to every node's command; rclpy takes remappings and parameters from
    ``sys.argv`` by itself.
    """
    own, theirs = [], False
    for argument in arguments:
        if argument == '--ros-args':
            theirs = True
        elif theirs and argument == '--':
            theirs = False
        elif not theirs:
            own.append(argument)
    return own


def main() -> None:
    """Entry point of the console script."""
    try:
        keep_freed_memory()
        spin_briefly()
        arguments = without_ros_arguments(sys.argv[1:])
        build(arguments[0] if arguments else None)(args=arguments, prog_name='ood')
    except KeyboardInterrupt:  # while the libraries are still being loaded
        sys.exit(130)


if __name__ == '__main__':
    main()
