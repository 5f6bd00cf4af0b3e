# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood play`: replay a rosbag2 bag over DDS."""

from __future__ import annotations

from typing import Annotated

import typer


def play(
    path: Annotated[str, typer.Argument(help='Bag: folder, .mcap or .db3.', metavar='BAG')],
    topics: Annotated[
        list[str] | None, typer.Option('--topics', '-t', help='To be played; repeat for more.')
    ] = None,
    rate: Annotated[float, typer.Option('--rate', '-r', help='Speed, 1 = as recorded.')] = 1.0,
    clock: Annotated[float, typer.Option(help='Publish /clock at this many Hz, 0 = no.')] = 0.0,
    loop: Annotated[bool, typer.Option('--loop', '-l', help='Again and again.')] = False,
    start_offset: Annotated[float, typer.Option(help='Seconds to leave out.')] = 0.0,
    remap: Annotated[
        list[str] | None, typer.Option('--remap', '-m', help='RECORDED:=PUBLISHED.')
    ] = None,
    wait_for: Annotated[
        list[str] | None, typer.Option(help='Topic that must have a subscriber first.')
    ] = None,
) -> None:
    """Publish the messages of a bag, untouched, with the recorded timing and QoS."""
    from ood_perception.cli.progress import CONSOLE, bar, fail, stopped_by_signals

    pairs = [item.partition(':=') for item in remap or []]
    if any(not (a and sign and b) for a, sign, b in pairs):
        raise typer.BadParameter(f'expected RECORDED:=PUBLISHED, got {remap}', param_hint='remap')
    try:
        from ood_perception.ros.tools.playing import play as play_bag

        with stopped_by_signals() as stop, bar(f'play {path} [s]', None) as show:
            sent = play_bag(
                path,
                topics=topics or (),
                rate=rate,
                clock=clock,
                loop=0 if loop else 1,
                start=start_offset,
                remap={a: b for a, _, b in pairs},
                wait_for=wait_for or (),
                stop=stop,
                on_progress=lambda done, length: show(round(done, 1)),
            )
    except (ValueError, ImportError) as error:
        raise fail(error) from None
    for topic, count in sorted(sent.items()):
        CONSOLE.print(f'{count:7d}  {topic}')
