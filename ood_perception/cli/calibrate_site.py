# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood calibrate-site`: the detection threshold that keeps to a budget of false alarms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ood_perception.cli.options import Device, IntensityRange, ProfileName


def calibrate_site(
    source: Annotated[
        str, typer.Argument(help='rosbag2 or video of normal operation, other than was taught.')
    ],
    alarms_per_hour: Annotated[
        float, typer.Option(help='False alarms an hour that are accepted.', min=0.001)
    ] = 1.0,
    profile: ProfileName = 'compact',
    output: Annotated[Path, typer.Option('--out', help='File of what was measured.')] = Path(
        'alarms.json'
    ),
    topic: Annotated[str, typer.Option(help="Image topic of a bag; '' = the only one.")] = '',
    device: Device = 'auto',
    rate: Annotated[
        float, typer.Option(help='Frames a second that the robot will process; 0 = all.', min=0.0)
    ] = 0.0,
    seconds: Annotated[float, typer.Option(help='Stop after so many; 0 = all.', min=0.0)] = 0.0,
    intensity_range: IntensityRange = '',
) -> None:
    """Measure normal operation and tell the threshold that keeps to the budget of alarms."""
    from ood_perception.alarm_budget import Peaks, threshold_for
    from ood_perception.bags.sources import open_source
    from ood_perception.cli.progress import CONSOLE, bar, fail, parse_range, told
    from ood_perception.pipeline import Pipeline

    try:
        opened = open_source(source, topic=topic, intensity=parse_range(intensity_range))
        pipeline = Pipeline.from_profile(profile, device)
        chosen = pipeline.profile
        if not (chosen.prompts.name and chosen.tracking.enabled):
            raise ValueError(f'profile {chosen.name!r} does not track objects')
        peaks, due, now = Peaks(), 0.0, 0.0
        first: int | None = None
        with bar('measuring normal operation', seconds or None) as show:
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
    except ValueError as error:
        raise fail(error) from None
    told(opened)
    CONSOLE.print(
        f'{verdict.text}\ndetection_threshold {verdict.threshold:.4f}; the node takes it with the '
        f'parameters alarms_file: {output.absolute()} and alarms_per_hour: {alarms_per_hour:g}',
    )
