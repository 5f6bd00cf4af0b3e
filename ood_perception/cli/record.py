# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood record`: write topics into a rosbag2 bag."""

from __future__ import annotations

from typing import Annotated

import typer


def record(
    path: Annotated[str, typer.Argument(help='Folder to be made.', metavar='OUT')],
    topics: Annotated[
        list[str] | None,
        typer.Option('--topics', '-t', help='To be recorded; repeat, or separate by commas.'),
    ] = None,
    everything: Annotated[bool, typer.Option('--all', '-a', help='Record every topic.')] = False,
    seconds: Annotated[float, typer.Option(help='Longest duration, 0 = until Ctrl-C.')] = 0.0,
    messages: Annotated[int, typer.Option(help='End after this many in all, 0 = never.')] = 0,
    storage: Annotated[str, typer.Option(help='mcap or sqlite3.')] = 'mcap',
) -> None:
    """Record messages, untouched, until Ctrl-C."""
    from ood_perception.cli.progress import CONSOLE, bar, fail, stopped_by_signals

    names = [name for item in topics or [] for name in item.split(',') if name]
    if bool(names) == everything:
        raise typer.BadParameter('give either --topics or --all')
    try:
        from ood_perception.ros.tools.recording import record as record_bag

        with stopped_by_signals() as stop, bar('record [messages]', messages or None) as show:
            counts = record_bag(
                path,
                names,
                (lambda done: sum(done.values()) >= messages) if messages else None,
                seconds=seconds,
                storage=storage,
                stop=stop,
                on_progress=lambda done: show(sum(done.values())),
            )
    except (ValueError, ImportError) as error:
        raise fail(error) from None
    if not any(counts.values()):
        what = ', '.join(names) or 'any topic'
        raise fail(f'{path}: not one message arrived on {what}; ros2 topic list shows the topics')
    for topic, count in sorted(counts.items()):
        CONSOLE.print(f'{count:7d}  {topic}')
