# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood drive`: render a drive with unknown objects and exact labels into a rosbag2 bag."""

from __future__ import annotations

from typing import Annotated

import typer


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
    storage: Annotated[str, typer.Option(help='mcap or sqlite3.')] = 'mcap',
    compressed: Annotated[bool, typer.Option(help='JPEG instead of raw images.')] = False,
) -> None:
    """
    Render the proving ground.

    Topics: /camera/image_raw, /camera/camera_info and /labels/{anomaly,instances,semantic}.
    """
    from ood_perception.cli.progress import CONSOLE, bar, fail, parse_size

    width, height = parse_size(size)
    if seconds <= 0:
        raise typer.BadParameter(f'expected more than 0 seconds, got {seconds}')
    try:
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
    except (ValueError, ImportError) as error:
        raise fail(error) from None
    CONSOLE.print(f'{count} frames in {path}')
