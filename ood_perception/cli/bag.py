# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood play`, `ood record`, `ood drive`: rosbag2 bags to DDS, from DDS, and rendered."""

from __future__ import annotations

from typing import Annotated

import typer

from ood_perception.cli.common import CONSOLE, Storage, bar, fail, parse_size, stopped_by_signals


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
    pairs = [item.partition(':=') for item in remap or []]
    if any(not (a and sign and b) for a, sign, b in pairs):
        raise typer.BadParameter(f'expected RECORDED:=PUBLISHED, got {remap}', param_hint='remap')
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
    _list_counts(sent)


def record(
    path: Annotated[str, typer.Argument(help='Folder to be made.', metavar='OUT')],
    topics: Annotated[
        list[str] | None,
        typer.Option('--topics', '-t', help='To be recorded; repeat, or separate by commas.'),
    ] = None,
    everything: Annotated[bool, typer.Option('--all', '-a', help='Record every topic.')] = False,
    seconds: Annotated[float, typer.Option(help='Longest duration, 0 = until Ctrl-C.')] = 0.0,
    messages: Annotated[int, typer.Option(help='End after this many in all, 0 = never.')] = 0,
    storage: Storage = 'mcap',
) -> None:
    """Record messages, untouched, until Ctrl-C."""
    names = [name for item in topics or [] for name in item.split(',') if name]
    if bool(names) == everything:
        raise typer.BadParameter('give either --topics or --all')
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
    if not any(counts.values()):
        what = ', '.join(names) or 'any topic'
        raise fail(f'{path}: not one message arrived on {what}; ros2 topic list shows the topics')
    _list_counts(counts)


def _list_counts(counts: dict[str, int]) -> None:
    for topic, count in sorted(counts.items()):
        CONSOLE.print(f'{count:7d}  {topic}')


def drive(
    path: Annotated[str, typer.Argument(help='Folder to be made.', metavar='OUT')],
    seconds: Annotated[float, typer.Option(help='Length of the drive.')] = 10.0,
    seed: Annotated[int, typer.Option(help='Decides everything that is seen.')] = 0,
    size: Annotated[str, typer.Option(help='WIDTHxHEIGHT.')] = '640x480',
    rate: Annotated[float, typer.Option(help='Frames per second.')] = 30.0,
    place: Annotated[
        str, typer.Option(help="urban, suburban, rural, highway, industrial; '' = the seed's.")
    ] = '',
    weather: Annotated[
        str, typer.Option(help="sun, haze, overcast, dusk, rain; '' = the seed's.")
    ] = '',
    storage: Storage = 'mcap',
    compressed: Annotated[bool, typer.Option(help='JPEG instead of raw images.')] = False,
) -> None:
    """
    Render the proving ground.

    Topics: /camera/image_raw, /camera/camera_info and /labels/{anomaly,instances,semantic}.
    """
    width, height = parse_size(size)
    if seconds <= 0:
        raise typer.BadParameter(f'expected more than 0 seconds, got {seconds}')
    from ood_perception.bags import writing
    from ood_simulation import ProvingGround

    ground = ProvingGround(seed, width, height, rate, place=place, weather=weather)
    with bar(f'drive, seed {seed}', round(seconds * rate)) as show:
        count = writing.write_drive(
            path,
            ground.drive(seconds),
            focal=ground.focal,
            storage=storage,
            compressed=compressed,
            on_frame=show,
        )
    CONSOLE.print(f'{count} frames in {path}')
