# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood learn-normal`: let a novelty memory watch normal operation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ood_perception.cli.options import Device, IntensityRange


def learn_normal(
    source: Annotated[str, typer.Argument(help='rosbag2, folder of pictures, or video.')],
    output: Annotated[Path, typer.Option('--out', help='File of the memory.')] = Path(
        'normal.safetensors'
    ),
    profile: Annotated[
        str, typer.Option(help='A profile whose score is site, novelty or knn.')
    ] = 'compact_site',
    topic: Annotated[str, typer.Option(help="Image topic of a bag; '' = the only one.")] = '',
    device: Device = 'auto',
    every: Annotated[
        int, typer.Option(help='Take every n-th frame; 0 = all pictures, each 5th of a stream.')
    ] = 0,
    limit: Annotated[int, typer.Option(help='Most frames taken, 0 = all.', min=0)] = 0,
    intensity_range: IntensityRange = '',
) -> None:
    """Learn what is normal from frames without unknown objects; writes memory and profile."""
    import dataclasses
    import itertools

    from ood_perception.bags.sources import open_source
    from ood_perception.cli.progress import CONSOLE, bar, fail, parse_range, told
    from ood_perception.pipeline import Pipeline
    from ood_perception.scores import learns

    try:
        opened = open_source(source, topic=topic, intensity=parse_range(intensity_range))
        step = every or (1 if opened.kind == 'pictures' else 5)
        pipeline = Pipeline.from_profile(profile, device)
        score = pipeline.score
        if not learns(score):
            raise ValueError(
                f'the score of profile {profile!r} ({pipeline.profile.score.name}) does not '
                'learn; take one with a memory, such as compact_site'
            )
        score.start()
        count = 0
        with bar('learning what is normal', limit or None) as show:
            for image in itertools.islice(opened.frames(), 0, None, step):
                pipeline([image], streams=['camera'], wants=('score',))
                count += 1
                show(count)
                if limit and count >= limit:
                    break
        score.stop()
        if score.poor:
            raise ValueError(f'{opened.name}: {score.poor}; nothing was written')
        output.parent.mkdir(parents=True, exist_ok=True)
        score.save(str(output))
    except ValueError as error:
        raise fail(error) from None
    told(opened)
    stage = dataclasses.replace(pipeline.profile.score, weights=str(output.absolute()))
    path = output.with_suffix('.yaml')
    name = f'{pipeline.profile.name}_{output.stem}'
    dataclasses.replace(pipeline.profile, name=name, score=stage).save(path)
    CONSOLE.print(
        f'{count} frames, {score.size} tokens kept in {output}; use it with profile:={path}',
        highlight=False,
    )
