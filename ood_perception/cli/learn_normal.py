# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood learn-normal`: let a novelty memory watch normal operation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def learn_normal(
    source: Annotated[str, typer.Argument(help='rosbag2, folder of pictures, or video.')],
    output: Annotated[Path, typer.Option('--out', help='File of the memory.')] = Path(
        'normal.safetensors'
    ),
    profile: Annotated[
        str, typer.Option(help='A profile whose score is novelty (or knn).')
    ] = 'compact_novelty',
    topic: Annotated[str, typer.Option(help='Image topic of a bag.')] = '/camera/image_raw',
    device: Annotated[str, typer.Option(help='auto, cpu or cuda[:N].')] = 'auto',
    every: Annotated[int, typer.Option(help='Take every n-th frame.', min=1)] = 5,
    limit: Annotated[int, typer.Option(help='Most frames taken, 0 = all.')] = 0,
) -> None:
    """Learn what is normal from frames without unknown objects; writes memory and profile."""
    import dataclasses
    import itertools
    from collections.abc import Iterator

    import numpy as np

    from ood_perception.cli.progress import CONSOLE, bar, fail
    from ood_perception.pipeline import Pipeline
    from ood_perception.scores import learns

    def frames() -> Iterator[np.ndarray]:
        if (Path(source) / 'metadata.yaml').is_file():
            from ood_perception.bags.rosbag2 import read_topic
            from ood_perception.frames.decode import decode

            for _, message in read_topic(source, topic):
                yield decode(message)
        else:
            from ood_perception.bags.sources import open_source

            yield from open_source(source).frames()

    try:
        pipeline = Pipeline.from_profile(profile, device)
        score = pipeline.score
        if not learns(score):
            raise ValueError(
                f'the score of profile {profile!r} ({pipeline.profile.score.name}) does not '
                'learn; take one with novelty, such as compact_novelty'
            )
        score.start()
        count = 0
        with bar('learning what is normal', limit or None) as show:
            for image in itertools.islice(frames(), 0, None, every):
                pipeline([image], streams=['camera'], wants=('score',))
                count += 1
                show(count)
                if limit and count >= limit:
                    break
        score.stop()
        output.parent.mkdir(parents=True, exist_ok=True)
        score.save(str(output))
    except (ValueError, OSError) as error:
        raise fail(error) from None
    stage = dataclasses.replace(pipeline.profile.score, weights=str(output.absolute()))
    path = output.with_suffix('.yaml')
    name = f'{pipeline.profile.name}_{output.stem}'
    dataclasses.replace(pipeline.profile, name=name, score=stage).save(path)
    CONSOLE.print(
        f'{count} frames, {score.size} tokens kept in {output}; use it with profile:={path}',
        highlight=False,
    )
