# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood demo`: frames through the node over real ROS 2, scored, with a report to open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ood_perception.cli import common

SEED = 1007
"""Of the rendered drive; training uses seeds below 1000."""

DAYLIGHT = ('sun', 'haze', 'overcast')
"""Weather of the rendered drive, drawn by its seed."""

UNKNOWNS = 2.0
"""Unknown objects that stand on 20 m of its road, in the mean."""

MOST = 3000
"""Frames of a source that are played, at most."""


def demo(
    output: Annotated[Path, typer.Option(help='Folder of the results.')] = Path('demo_output'),
    seconds: Annotated[float, typer.Option(help='Length of the drive.', min=1.0)] = 12.0,
    seed: Annotated[int, typer.Option(help='Seed of the rendered drive.')] = SEED,
    source: Annotated[
        str, typer.Option('--input', help='Your own pictures, video or rosbag2.')
    ] = '',
    topic: Annotated[
        str, typer.Option(help="Image topic of your rosbag2; '' = the only one.")
    ] = '',
    profile: common.ProfileName = 'compact',
    rate: Annotated[
        float, typer.Option(help='Frames per second in the stamps of pictures.', min=0.01)
    ] = 10.0,
    intensity_range: common.IntensityRange = '',
) -> None:
    """Play a drive (or your frames) to the node and write report.html and summary.json."""
    from ood_perception.bags import reading as bags
    from ood_perception.bags import writing
    from ood_perception.ros.tools.live import run_live
    from ood_simulation import ProvingGround

    console = Console()
    output.mkdir(parents=True, exist_ok=True)
    intensity, parameters = common.parse_range(intensity_range), []
    if intensity is not None:
        parameters = [f'intensity_range:=[{intensity[0]}, {intensity[1]}]']
    lockstep = False
    given = Path(source).expanduser()
    for name in ('drive', 'run'):
        _make_room(output / name, given if source else None)
    bag, image_topic = output / 'drive', '/camera/image_raw'
    if not source:
        ground = ProvingGround(seed, unknowns=UNKNOWNS, weather=DAYLIGHT[seed % len(DAYLIGHT)])
        what, length = f'rendering a drive of {seconds:g} s', round(seconds * ground.rate)
        with common.bar(what, length) as show:
            writing.write_drive(bag, ground.drive(seconds), focal=ground.focal, on_frame=show)
    elif given.exists() and bags.is_bag(given):
        bag, image_topic = given, bags.image_topic(given, topic)
    else:
        lockstep = write_pictures(bag, source, rate, intensity)
    console.print(f'Starting the node with profile {profile} (loads and warms up)')
    with common.bar('playing to the node', None) as show:
        run = run_live(
            bag,
            output / 'run',
            profile=profile,
            image_topic=image_topic,
            on_progress=lambda done, total: show(round(done)),
            parameters=parameters,
            lockstep=lockstep,
        )
    from ood_evaluation.joining import Recording, Topics
    from ood_evaluation.pictures import photograph_panels
    from ood_evaluation.replay import evaluate_live
    from ood_evaluation.report import write_report
    from ood_perception.pipeline import Pipeline

    with common.bar('scoring', None):
        played = Recording(bag, Topics(image=image_topic))
        evaluated = evaluate_live(run, played, profile)
        beside = (
            [] if source else photograph_panels(Pipeline.from_profile(profile, engine='eager'))
        )
        write_report(output / 'report.html', [evaluated], photographs=beside)
    (output / 'summary.json').write_text(json.dumps(evaluated.summary, indent=2) + '\n')
    show_table(console, evaluated.summary)
    for problem, count in evaluated.problems.items():
        common.note(f'{problem} ({count}x)')
    dropped = run.frames_in - int(evaluated.summary['frames_out'])
    if dropped > 0:
        why = 'they came faster than the node takes them; ood run processes every frame'
        common.note(f'{dropped} of {run.frames_in} frames were dropped: {why}')
    text = common.printable(f'Open {output / "report.html"}; numbers: {output}/summary.json')
    console.print(text, markup=False)


def write_pictures(
    path: Path, source: str, rate: float, intensity: tuple[float, float] | None
) -> bool:
    """
    Write somebody's pictures as a rosbag2; True where they have no rate, so that none need drop.

    Raises:
        SourceError: the source cannot be opened, or yields nothing.
    """
    from ood_perception.bags import writing
    from ood_perception.bags.sources import nothing, open_source
    from ood_perception.frames.picture import MIN_SIDE
    from ood_simulation import SimulatedFrame

    opened = open_source(source, intensity=intensity)
    step = 1 / (opened.rate or rate)

    def frames() -> Iterator[Any]:
        index = 0
        for item in opened.items():
            if index == MOST:
                common.note(f'only the first {MOST} frames of {opened.name} are taken')
                return
            image, reason = item.image, item.reason
            if image is not None and min(image.shape[:2]) < MIN_SIDE:
                image, reason = None, f'smaller than the {MIN_SIDE}x{MIN_SIDE} of the node'
            if image is None:
                opened.skipped.append((item.file, reason))
                continue
            image = _within(image, item.file)
            yield SimulatedFrame(image, None, None, None, index * step)  # type: ignore[arg-type]
            index += 1

    with common.bar(f'reading {opened.name}', opened.length or None) as show:
        count = writing.write_drive(path, frames(), labels='', on_frame=show)
    common.told(opened)
    if not count:
        raise nothing(opened)
    return not opened.rate


def _make_room(folder: Path, given: Path | None) -> None:
    """Remove what an earlier demo left, and nothing else. Raises ValueError."""
    from ood_perception.bags import reading as bags

    if not folder.exists():
        return
    ours = not any(folder.iterdir()) or bags.is_bag(folder) or (folder / 'node.log').is_file()
    if not ours or (given is not None and given.resolve().is_relative_to(folder.resolve())):
        why = 'is the input' if ours else 'holds something else'
        raise ValueError(f'{folder} {why} and would be overwritten; choose another --output')
    shutil.rmtree(folder)


def _within(image: Any, name: str) -> Any:
    """Picture of no more pixels than the node takes."""
    import cv2

    from ood_perception.frames.picture import MAX_PIXELS

    height, width = image.shape[:2]
    if height * width <= MAX_PIXELS:
        return image
    scale = (MAX_PIXELS / (height * width)) ** 0.5
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    common.note(f'{name}: {width}x{height} is scaled to {size[0]}x{size[1]} for the node')
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def show_table(console: Any, summary: dict[str, Any]) -> None:
    """Print what a person asks first; all figures are in summary.json."""
    from ood_evaluation.report import objects_found

    table = Table(show_header=False)
    rows = {
        'objects found': objects_found(summary),
        'false alarms a minute': _number(summary, 'alarms_per_minute', '.1f'),
        'frames a second': _number(summary, 'fps', '.1f'),
        'engine': f'{summary.get("engine") or "unknown"} on {summary.get("device") or "unknown"}',
        'latency, 95 % below': _number(summary, 'latency_ms_p95', '.0f', ' ms'),
        'AP of pixels': _number(summary, 'ap', '.3f'),
        'FPR95 of pixels': _number(summary, 'fpr95', '.4f'),
        'F1 of outlines': _number(summary, 'instance_f1', '.3f'),
        'IoU of found outlines': _number(summary, 'instance_mean_iou', '.3f'),
        'profile': str(summary.get('profile', '')),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    console.print(table)


def _number(summary: dict[str, Any], key: str, form: str, unit: str = '') -> str:
    value = summary.get(key)
    return '' if value is None else f'{value:{form}}{unit}'
