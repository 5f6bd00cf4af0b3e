# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood camera`: a folder, video, webcam or the proving ground as a ROS 2 camera; `ood view`."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ood_perception.cli.common import CONSOLE, bar, parse_size, stopped_by_signals, told

Port = Annotated[int, typer.Option(help='Port of the page on this machine, 0 = any.')]


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
    view: Annotated[
        bool, typer.Option('--view', help='Run the node too and show what it finds in a browser.')
    ] = False,
    profile: Annotated[str, typer.Option(help='With --view: what the node runs.')] = 'compact',
    port: Port = 8080,
) -> None:
    """
    Publish pictures as a camera.

    Topics: /camera/image_raw, /camera/image_raw/compressed and /camera/camera_info.
    """

    width, height = parse_size(size, empty=True)
    from ood_perception.bags.sources import open_source
    from ood_perception.ros.tools.camera import run_camera

    opened = open_source(source, width, height)
    total = min(frames or opened.length, opened.length or frames) if not loop else frames
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals())
        if view:
            from ood_perception.ros.tools.live import node_process
            from ood_perception.ros.tools.view import serve

            base = f'{"/" + namespace.strip("/")}/image_raw'
            log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / 'node.log'
            stack.enter_context(node_process([f'profile:={profile}'], base, log))
            address = stack.enter_context(serve(port=port))
            CONSOLE.print(f'open {address} (the first picture comes when the node is ready)')
            namespace, wait = base.removesuffix('/image_raw'), wait or 120.0
        show = stack.enter_context(bar(f'camera {opened.name}', total or None))
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
    told(opened)
    CONSOLE.print(f'{sent} frames sent')


def view(
    topic: Annotated[
        str, typer.Argument(help='sensor_msgs/CompressedImage topic.')
    ] = '/ood/overlay/compressed',
    port: Port = 8080,
) -> None:
    """Show a topic of a running node in a browser on this machine, until Ctrl-C."""

    from ood_perception.ros.tools.view import serve

    with stopped_by_signals() as stop, serve(topic, port) as address:
        CONSOLE.print(f'open {address}')
        stop.wait()
