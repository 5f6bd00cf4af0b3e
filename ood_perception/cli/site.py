# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A site, taught from files: `ood learn-normal`, `ood calibrate-site` and `ood site`.

The last merges memories of several robots, lists and takes back what was said of objects.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from ood_perception.cli import common

app = common.group('Memories of a site, and what was said of objects.')

Folder = Annotated[Path, typer.Argument(help="The node's site_folder.")]

SMALL = 0.002
"""Share of a frame from which something unknown is in it."""


class Unusual:
    """The frames that look least normal to what is not taught."""

    def __init__(self) -> None:
        self.frames = 0  # number of those that show something unknown
        self._worst: list[tuple[float, Any, Any]] = []

    def look(self, image: Any, probability: Any) -> None:
        """Note a frame, uint8 (H, W, 3) RGB, and its probability float32 (h, w)."""
        share = float((probability > 0.5).mean())
        self.frames += share > SMALL
        self._worst.append((share, image, probability))
        self._worst = sorted(self._worst, key=lambda entry: -entry[0])[:6]

    def save(self, path: Path) -> None:
        """Draw the worst ones, what is unknown in colour."""
        from ood_perception.drawing import draw
        from ood_perception.frames.picture import encode

        tiles = []
        for _, image, probability in self._worst:
            heat = cv2.resize(np.rint(255 * probability).astype(np.uint8), (480, 360))
            tiles.append(draw(cv2.resize(image, (480, 360)), heat, None))
        path.write_bytes(encode(np.hstack(tiles), path.suffix))


def learn_normal(
    source: Annotated[str, typer.Argument(help='rosbag2, folder of pictures, or video.')],
    output: Annotated[Path, typer.Option('--out', help='File of the memory.')] = Path(
        'normal.safetensors'
    ),
    profile: Annotated[
        str, typer.Option(help='A profile whose score is site, novelty or knn.')
    ] = 'compact_site',
    topic: common.Topic = '',
    device: common.Device = 'auto',
    every: Annotated[
        int, typer.Option(help='Take every n-th frame; 0 = all pictures, each 5th of a stream.')
    ] = 0,
    limit: Annotated[int, typer.Option(help='Most frames taken, 0 = all.', min=0)] = 0,
    intensity_range: common.IntensityRange = '',
) -> None:
    """Learn what is normal from frames without unknown objects; writes memory and profile."""
    from ood_perception.bags.sources import open_source
    from ood_perception.pipeline import Pipeline
    from ood_perception.scores import learns

    opened = open_source(source, topic=topic, intensity=common.parse_range(intensity_range))
    step = every or (1 if opened.kind == 'pictures' else 5)
    pipeline = Pipeline.from_profile(profile, device)
    score = pipeline.score
    if not learns(score):
        raise ValueError(
            f'the score of profile {profile!r} ({pipeline.profile.score.name}) does not '
            'learn; take one with a memory, such as compact_site'
        )
    score.start()
    count, unusual = 0, Unusual()
    with common.bar('learning what is normal', limit or None) as show:
        for image in itertools.islice(opened.frames(), 0, None, step):
            pipeline([image], streams=['camera'], wants=('score',))
            if score.seen is not None:
                unusual.look(image, pipeline.calibration(score.seen)[0].cpu().numpy())
            count += 1
            show(count)
            if limit and count >= limit:
                break
    score.stop()
    if score.poor:
        raise ValueError(f'{opened.name}: {score.poor}; nothing was written')
    output.parent.mkdir(parents=True, exist_ok=True)
    score.save(str(output))
    common.told(opened)
    stage = dataclasses.replace(pipeline.profile.score, weights=str(output.absolute()))
    path = output.with_suffix('.yaml')
    name = f'{pipeline.profile.name}_{output.stem}'
    dataclasses.replace(pipeline.profile, name=name, score=stage).save(path)
    common.CONSOLE.print(
        f'{count} frames, {score.size} tokens kept in {output}; use it with profile:={path}',
    )
    if unusual.frames > count / 2:
        sheet = output.with_suffix('.jpg')
        unusual.save(sheet)
        common.CONSOLE.print(
            f'warning: something unknown was in {unusual.frames} of {count} frames; what is here '
            f'all the time becomes normal. Look at {sheet}: if one of it should alarm, take it '
            'away and learn anew',
        )


def calibrate_site(
    source: Annotated[
        str, typer.Argument(help='rosbag2 or video of normal operation, other than was taught.')
    ],
    alarms_per_hour: Annotated[
        float, typer.Option(help='False alarms an hour that are accepted.', min=0.001)
    ] = 1.0,
    profile: common.ProfileName = 'compact',
    output: Annotated[Path, typer.Option('--out', help='File of what was measured.')] = Path(
        'alarms.json'
    ),
    topic: common.Topic = '',
    device: common.Device = 'auto',
    rate: Annotated[
        float, typer.Option(help='Frames a second that the robot will process; 0 = all.', min=0.0)
    ] = 0.0,
    seconds: Annotated[float, typer.Option(help='Stop after so many; 0 = all.', min=0.0)] = 0.0,
    intensity_range: common.IntensityRange = '',
) -> None:
    """Measure normal operation and tell the threshold that keeps to the budget of alarms."""
    from ood_perception.alarm_budget import Peaks, threshold_for
    from ood_perception.bags.sources import open_source
    from ood_perception.pipeline import Pipeline

    opened = open_source(source, topic=topic, intensity=common.parse_range(intensity_range))
    pipeline = Pipeline.from_profile(profile, device)
    chosen = pipeline.profile
    if not (chosen.prompts.name and chosen.tracking.enabled):
        raise ValueError(f'profile {chosen.name!r} does not track objects')
    peaks, due, now = Peaks(), 0.0, 0.0
    first: int | None = None
    with common.bar('measuring normal operation', seconds or None) as show:
        for item in opened.usable():
            if item.stamp_ns is None:
                raise ValueError(f'{opened.name}: pictures have no time; give a bag or video')
            first = item.stamp_ns if first is None else first
            now = (item.stamp_ns - first) / 1e9
            if seconds and now >= seconds:
                break
            if rate and now < due:
                continue
            due = max(due + 1 / rate, now) if rate else 0.0
            wants, stamps = ('instances',), [item.stamp_ns]  # as the node: with its memory
            (result,) = pipeline([item.image], ['camera'], wants=wants, stamps=stamps)
            peaks.look('camera', now, result.ids, result.confidences)
            show(now)
    verdict = threshold_for(peaks.finished(), alarms_per_hour)
    peaks.save(output, pipeline.identity)
    common.told(opened)
    common.CONSOLE.print(
        f'{verdict.text}\ndetection_threshold {verdict.threshold:.4f}; the node takes it with the '
        f'parameters alarms_file: {output.absolute()} and alarms_per_hour: {alarms_per_hour:g}',
    )


@app.command()
def merge(
    memories: Annotated[list[Path], typer.Argument(help='Files of `ood learn-normal`.')],
    output: Annotated[Path, typer.Option('--out', help='File of the merged memory.')],
    capacity: Annotated[int, typer.Option(help='Most tokens kept.', min=2)] = 1024,
) -> None:
    """Make one memory of those of several robots with the same profile."""
    from ood_perception.scores.tokens import TokenBank

    first, *others = [TokenBank.read(str(path), capacity) for path in memories]
    for other in others:
        first.merge(other)
    first.save(str(output))
    common.CONSOLE.print(f'{first.frames} frames, {len(first)} tokens kept in {output}')


@app.command('list')
def list_entries(folder: Folder) -> None:
    """List the objects that were accepted as normal or reported as real."""
    from ood_perception.site_folder import names

    for name in (found := names(folder)):
        common.CONSOLE.print(f'{name}  {folder / "images" / name}.png', soft_wrap=True)
    common.CONSOLE.print(f'{len(found)} entries in {folder}', soft_wrap=True)


@app.command()
def undo(folder: Folder, name: Annotated[str, typer.Argument(help='As `list` tells it.')]) -> None:
    """Take one back; the node heeds it when it is configured next."""
    from ood_perception import site_folder

    site_folder.undo(folder, name)
    common.CONSOLE.print(f'{name} is taken back', soft_wrap=True)
