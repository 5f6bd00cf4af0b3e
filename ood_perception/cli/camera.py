# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood camera`: a folder, a video, a webcam or the proving ground as a ROS 2 camera."""

from __future__ import annotations

from typing import Annotated

import typer


def camera(
    source: Annotated[
        str,
        typer.Argument(
            help='Folder, video, picture, rosbag2, webcam number or proving-ground[:SEED].'
        ),
    ],
    namespace: Annotated[str, typer.Option(help='Namespace of the topics.')] = 'camera',
    rate: Annotated[float, typer.Option(help="Frames per second, 0 = the source's own.")] = 0.0,
    transport: Annotated[str, typer.Option(help='raw, compressed or both.')] = 'both',
    frame_id: Annotated[str, typer.Option(help='Of the headers.')] = 'camera_optical_frame',
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT, empty = the source's own.")] = '',
    frames: Annotated[int, typer.Option(help='Most frames to send, 0 = all.')] = 0,
    loop: Annotated[bool, typer.Option(help='Begin again at the end.')] = False,
    wait: Annotated[float, typer.Option(help='Seconds to wait for a subscriber.')] = 0.0,
    quality: Annotated[int, typer.Option(help='Of the JPEG, 1..100.')] = 90,
    qos: Annotated[str, typer.Option(help='reliable, best_effort, sensor_data, ...')] = 'reliable',
) -> None:
    """
    Publish pictures as a camera.

    Topics: /camera/image_raw, /camera/image_raw/compressed and /camera/camera_info.
    """
    from ood_perception.cli.progress import (
        CONSOLE,
        bar,
        fail,
        parse_size,
        stopped_by_signals,
        told,
    )

    width, height = parse_size(size, empty=True)
    try:
        from ood_perception.ros.tools.camera import open_source, run_camera

        opened = open_source(source, width, height)
        total = min(frames or opened.length, opened.length or frames) if not loop else frames
        with stopped_by_signals() as stop, bar(f'camera {opened.name}', total or None) as show:
            sent = run_camera(
                opened,
                namespace=namespace,
                rate=rate,
                frames=frames,
                loop=loop,
                wait=wait,
                stop=stop,
                on_frame=show,
                transport=transport,
                frame_id=frame_id,
                quality=quality,
                qos_name=qos,
            )
    except (ValueError, ImportError) as error:
        raise fail(error) from None
    told(opened)
    CONSOLE.print(f'{sent} frames sent', highlight=False)
