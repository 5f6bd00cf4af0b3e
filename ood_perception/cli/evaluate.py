# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
`ood evaluate`: a bag, a benchmark's folder, or the proving ground; one report for all.

`ood compare` puts several such reports side by side.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ood_perception.cli import common

if TYPE_CHECKING:
    from ood_evaluation.evaluator import Evaluation, Evaluator
    from ood_evaluation.joining import Recording, Topics

app = common.group('Measure a profile on bags, folders or drives.')

Output = Annotated[Path, typer.Option(help='Folder of report.html, report.json, report.csv.')]
Mode = Annotated[str, typer.Option(help='Pixel metrics: streaming, exact, smiyc or uem.')]
Track = Annotated[str, typer.Option(help="Component metrics: anomaly, obstacle or ''.")]
Labels = Annotated[
    str,
    typer.Option(
        help='Folder of label images named by stamp in ns, or a CSV of stamp,file; instead of '
        'topics. With several bags: one folder in it for each, of the name of the bag.'
    ),
]
Depth = Annotated[str, typer.Option(help='Topic of registered depth images, for distances.')]
Workers = Annotated[int, typer.Option(help='Bags evaluated at a time.', min=1)]
Values = Annotated[
    str, typer.Option(help='Meaning of label values, VALUE=0, 1 or 255 by commas, as in 255=1.')
]
Zones = Annotated[
    list[str] | None,
    typer.Option(
        '--ignore-zone',
        metavar="'X,Y X,Y X,Y ...'",
        help='Polygon, in shares 0..1 of the image, that does not count; may be repeated.',
    ),
]
Required = Annotated[
    list[str] | None,
    typer.Option(
        '--require',
        metavar='NAME=NUMBER',
        help='End with 1 unless a figure is as good; may be repeated. ap=0.9 alarms_per_minute=1',
    ),
]


@dataclass(frozen=True)
class BagWork:
    """What is done with each bag; can be sent to another process."""

    profile: str
    device: str
    mode: str
    track: str
    zones: tuple[str, ...]
    topics: Topics
    labels: str
    values: dict[int, int]
    intensity: tuple[float, float] | None

    def recording(self, bag: Path, folder: Path) -> Recording:
        """Bag with its labels: of the folder, where one is given, else its own."""
        from ood_evaluation.joining import Recording
        from ood_evaluation.labels import LabelFolder, LabelValues

        values = LabelValues(more=self.values)
        labels = LabelFolder(folder, values) if self.labels else None
        return Recording(bag, self.topics, labels, values, self.intensity)

    def __call__(self, bag: Path) -> Evaluator:
        """Evaluate one of several bags with a pipeline of this process."""
        from ood_evaluation.evaluator import Evaluator
        from ood_evaluation.replay import bag_frames
        from ood_perception.bags.files import shown
        from ood_perception.pipeline import Pipeline

        source = self.recording(bag, Path(self.labels) / bag.stem)
        pipeline = Pipeline.from_profile(self.profile, self.device)
        evaluator = Evaluator(pipeline.profile.name, self.mode, self.track, zones=self.zones)
        for frame in bag_frames(pipeline, source, evaluator.problems, shown(bag.absolute())):
            evaluator.update(frame)
        return evaluator


@app.command()
def bag(
    bags: Annotated[list[Path], typer.Argument(help='rosbag2 folders or files.')],
    output: Output = Path('evaluation'),
    profile: common.ProfileName = 'compact',
    device: common.Device = 'auto',
    live: Annotated[bool, typer.Option(help='Play it over DDS to a node at its rate.')] = False,
    rate: Annotated[float, typer.Option(help='Speed of the live replay.')] = 1.0,
    image: Annotated[str, typer.Option(help='Topic of the images.')] = '/camera/image_raw',
    anomaly: Annotated[str, typer.Option(help='Topic of the labels.')] = '/labels/anomaly',
    instances: Annotated[str, typer.Option(help='Topic of true ids.')] = '/labels/instances',
    labels: Labels = '',
    values: Values = '',
    depth: Depth = '/camera/depth/image_raw',
    mode: Mode = 'streaming',
    track: Track = '',
    write: Annotated[bool, typer.Option(help='Write the outputs as a bag, too.')] = False,
    workers: Workers = 1,
    intensity_range: common.IntensityRange = '',
    ignore_zone: Zones = None,
    require: Required = None,
) -> None:
    """Evaluate bags: every frame in this process, or live over DDS."""
    from ood_evaluation.joining import Topics
    from ood_evaluation.labels import parse_values

    intensity = common.parse_range(intensity_range)
    zones, required = _zones(ignore_zone), _required(require)
    topics = Topics(image, anomaly, instances, depth=depth)
    meaning = parse_values(values)
    work = BagWork(profile, device, mode, track, zones, topics, labels, meaning, intensity)
    if live:
        if len(bags) != 1:
            raise ValueError(f'live: expected one bag, got {len(bags)}')
        from ood_evaluation.replay import evaluate_live
        from ood_perception.ros.tools.live import run_live

        source = work.recording(bags[0], Path(labels))
        with common.bar('playing to the node', None) as show:
            run = run_live(
                bags[0],
                output / 'run',
                profile=profile,
                device=device,
                image_topic=image,
                rate=rate,
                on_progress=lambda done, total: show(round(done)),
            )
        found = evaluate_live(run, source, profile, track=track, zones=zones)
    elif len(bags) == 1:
        from ood_evaluation.replay import evaluate_bag
        from ood_perception.pipeline import Pipeline

        source = work.recording(bags[0], Path(labels))
        pipeline = Pipeline.from_profile(profile, device)
        with common.bar('evaluating frames', None) as show:
            found = evaluate_bag(
                pipeline,
                source,
                track=track,
                mode=mode,
                write=output / 'outputs' if write else None,
                zones=zones,
                on_progress=show,
            )
    else:
        from ood_evaluation.replay import evaluate_shards

        with common.bar('evaluating bags', len(bags)) as show:
            merged = evaluate_shards(bags, work, workers, on_progress=show)
        found = merged.compute(profile=profile, bags=len(bags))
    _report(output, found, required)


@app.command()
def folder(
    root: Annotated[Path, typer.Argument(help='Folder of the data set.')],
    dataset: Annotated[str, typer.Option(help='Layout; `ood evaluate list` shows all.')] = 'pairs',
    output: Output = Path('evaluation'),
    profile: common.ProfileName = 'compact',
    device: common.Device = 'auto',
    mode: Mode = 'smiyc',
    values: Values = '',
    intensity_range: common.IntensityRange = '',
    ignore_zone: Zones = None,
    require: Required = None,
) -> None:
    """Evaluate a benchmark or a folder of images and labels."""
    from ood_evaluation.datasets import open_dataset
    from ood_evaluation.evaluator import Evaluator
    from ood_evaluation.labels import LabelValues, parse_values
    from ood_evaluation.replay import predicted
    from ood_perception.pipeline import Pipeline

    intensity = common.parse_range(intensity_range)
    zones, required = _zones(ignore_zone), _required(require)
    more = parse_values(values)
    data = open_dataset(dataset, root)
    pipeline = Pipeline.from_profile(profile, device)
    evaluator = Evaluator(pipeline.profile.name, mode, data.layout.track, zones=zones)
    with common.bar('evaluating images', len(data)) as show:
        meaning = LabelValues(data.layout.values, more)
        frames = data.frames(evaluator.problems, meaning, intensity)
        for number, frame in enumerate(frames):
            if predicted(pipeline, frame, evaluator.problems):
                evaluator.update(frame)
            pipeline.reset(frame.stream)
            show(number + 1)
    if not evaluator.frames:
        raise ValueError(f'{root}: not one image could be used: {_problems(evaluator)}')
    if not evaluator.labelled:
        raise ValueError(f'{root}: not one label could be used: {_problems(evaluator)}')
    _report(output, evaluator.compute(profile=profile, dataset=dataset), required)


@app.command()
def drive(
    seed: Annotated[int, typer.Option(help='Seed of the rendered drive.')] = 1007,
    seconds: Annotated[float, typer.Option(help='Length.', min=0.1)] = 10.0,
    rate: Annotated[float, typer.Option(help='Frames per second.', min=0.1)] = 10.0,
    output: Output = Path('evaluation'),
    profile: common.ProfileName = 'compact',
    device: common.Device = 'auto',
    mode: Mode = 'streaming',
    track: Track = 'obstacle',
    ignore_zone: Zones = None,
    require: Required = None,
) -> None:
    """Evaluate on a rendered drive of the proving ground."""
    from ood_evaluation.evaluator import Evaluator, Frame
    from ood_evaluation.replay import predicted
    from ood_perception.pipeline import Pipeline
    from ood_simulation import ProvingGround

    zones, required = _zones(ignore_zone), _required(require)
    pipeline = Pipeline.from_profile(profile, device)
    evaluator = Evaluator(pipeline.profile.name, mode, track, zones=zones)
    ground = ProvingGround(seed, rate=rate)
    with common.bar('evaluating frames', round(seconds * rate)) as show:
        for number, shot in enumerate(ground.drive(seconds)):
            frame = Frame(round(shot.stamp * 1e9), f'drive {seed}')
            frame.image = lambda shot=shot: shot.image  # type: ignore[misc]
            frame.anomaly, frame.truth = shot.anomaly, shot.instances
            frame.distances = shot.distances
            if predicted(pipeline, frame, Counter()):
                evaluator.update(frame)
            show(number + 1)
    _report(output, evaluator.compute(profile=profile, drive=seed), required)


@app.command('list')
def list_datasets() -> None:
    """Data sets that `ood evaluate folder` knows, and where they are obtained."""
    from ood_evaluation.datasets import DATASETS

    for name, layout in DATASETS.items():
        typer.echo(f'{name}: {layout.title}\n  labels {layout.labels}\n  from {layout.where}')


def compare(
    runs: Annotated[list[Path], typer.Argument(help='Folders or report.json of runs.')],
    output: Annotated[Path, typer.Option(help='Report to write.')] = Path('comparison.html'),
) -> None:
    """Put evaluated runs into one table and one report."""
    from ood_evaluation.report import read_numbers, summary_rows, write_report

    if len(runs) < 2:
        raise ValueError(f'runs: expected two or more, got {len(runs)}')
    found = []
    for path in runs:
        for run in read_numbers(path):
            # The same profile in two folders needs two names.
            run.name = f'{run.name} ({path.stem if path.suffix else path.name})'
            found.append(run)
    table = Table('figure', *(run.name for run in found))
    for key, values in summary_rows(found):
        table.add_row(key, *values)
    Console().print(table)
    write_report(output, found, 'Unknown objects: comparison of runs')
    typer.echo(f'report: {output}')


def _problems(evaluator: Evaluator) -> str:
    return '; '.join(list(evaluator.problems)[:3])


def _zones(texts: list[str] | None) -> tuple[str, ...]:
    from ood_perception.frames.zones import corners

    for text in texts or ():
        try:
            corners(text)
        except ValueError as error:
            raise typer.BadParameter(f'--ignore-zone: {error}') from None
    return tuple(texts or ())


def _required(texts: list[str] | None) -> dict[str, float]:
    from ood_evaluation.report import parse_requirements

    try:
        return parse_requirements(texts or ())
    except ValueError as error:
        raise typer.BadParameter(f'--require: {error}') from None


def _report(output: Path, found: Evaluation, required: dict[str, float]) -> None:
    from ood_evaluation.report import missed, text, write_report

    path = write_report(output / 'report.html', [found])
    chosen: dict[str, Any] = {k: v for k, v in found.summary.items() if v is not None}
    for key, value in chosen.items():
        typer.echo(f'{key:24} {text(value)}')
    for problem, count in found.problems.items():
        text_of = common.printable(f'problem ({count}x): {problem}')
        typer.secho(text_of, fg='yellow', err=True)
    typer.echo(f'report: {path}')
    if lines := missed(found.summary, required):
        raise common.fail('required figures are missed: ' + '; '.join(lines))
