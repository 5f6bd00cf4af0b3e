# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood demo`: frames through the node over real ROS 2, scored, with a report to open."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

SEED = 1007
"""Of the rendered drive; training uses seeds below 1000."""


def demo(
    output: Annotated[Path, typer.Option(help='Folder of the results.')] = Path('demo_output'),
    seconds: Annotated[float, typer.Option(help='Length of the drive.', min=1.0)] = 12.0,
    seed: Annotated[int, typer.Option(help='Seed of the rendered drive.')] = SEED,
    source: Annotated[
        str, typer.Option('--input', help='Your own folder of pictures, video or rosbag2.')
    ] = '',
    topic: Annotated[
        str, typer.Option(help="Image topic of your rosbag2; '' = the only one.")
    ] = '',
    profile: Annotated[str, typer.Option(help='Name or path of a profile.')] = 'compact',
    rate: Annotated[float, typer.Option(help='Frames per second of pictures.')] = 10.0,
) -> None:
    """Play a drive (or your frames) to the node and write report.html and summary.json."""
    from rich.console import Console

    from ood_perception.bags import rosbag2 as bags
    from ood_perception.bags.sources import SourceError
    from ood_perception.cli.progress import bar, fail
    from ood_perception.ros.tools.live import LiveError, run_live

    console = Console()
    for name in ('drive', 'run'):
        shutil.rmtree(output / name, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    try:
        if source and (Path(source) / 'metadata.yaml').is_file():
            bag, image_topic = Path(source), topic or only_image_topic(source)
        else:
            bag, image_topic = output / 'drive', '/camera/image_raw'
            write_bag(bag, source, seconds, seed, rate)
        console.print(f'Starting the node with profile {profile} (loads and warms up)')
        with bar('playing to the node', None) as show:
            run = run_live(
                bag,
                output / 'run',
                profile=profile,
                image_topic=image_topic,
                on_progress=lambda done, total: show(round(done)),
            )
    except (bags.BagError, SourceError, LiveError, ValueError) as error:
        raise fail(error) from None
    from ood_perception.evaluation.replay import evaluate_live
    from ood_perception.evaluation.report import write_report

    with bar('scoring', None):
        evaluated = evaluate_live(run, bag, image_topic, profile)
        write_report(output / 'report.html', [evaluated])
    (output / 'summary.json').write_text(json.dumps(evaluated.summary, indent=2) + '\n')
    show_table(console, evaluated.summary)
    console.print(f'Open [bold]{output / "report.html"}[/bold]; numbers: {output}/summary.json')


def write_bag(path: Path, source: str, seconds: float, seed: int, rate: float) -> None:
    """Write the rendered drive with labels, or somebody's pictures without, as a rosbag2."""
    from ood_perception.bags import rosbag2 as bags
    from ood_perception.bags.sources import open_source
    from ood_perception.cli.progress import bar
    from ood_perception.simulation import ProvingGround, SimulatedFrame

    if not source:
        ground = ProvingGround(seed)
        with bar(f'rendering a drive of {seconds:g} s', round(seconds * ground.rate)) as show:
            bags.write_drive(path, ground.drive(seconds), focal=ground.focal, on_frame=show)
        return
    opened = open_source(source)
    step = 1 / (opened.rate or rate)

    def frames() -> Iterator[Any]:
        for index, image in enumerate(opened.frames()):
            yield SimulatedFrame(image, None, None, None, index * step)  # type: ignore[arg-type]

    most = itertools.islice(frames(), 3000)
    with bar(f'reading {opened.name}', opened.length or None) as show:
        bags.write_drive(path, most, labels='', on_frame=show)


def only_image_topic(bag: str) -> str:
    """
    Topic of a bag's images.

    Raises:
        BagError: there is none, or several to choose from.

    """
    from ood_perception.bags import rosbag2 as bags

    kinds = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
    names = [t.name for t in bags.topics(bag) if t.type in kinds and 'depth' not in t.name.lower()]
    if len(names) != 1:
        raise bags.BagError(f'{bag}: choose --topic from {", ".join(names) or "no image topic"}')
    return names[0]


def show_table(console: Any, summary: dict[str, Any]) -> None:
    """Print the summary as a short table."""
    from rich.table import Table

    table = Table(show_header=False)
    for key, value in summary.items():
        if isinstance(value, (int, float, str)):
            text = f'{value:.3f}' if isinstance(value, float) else str(value)
            table.add_row(key, text)
    console.print(table)
