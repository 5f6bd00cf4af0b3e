# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

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

    def frames() -> Iterator[np.ndarray]:
        if (Path(source) / 'metadata.yaml').is_file():
            from ood_perception.ros.bag import read_topic
            from ood_perception.ros.messages import decode

            for _, message in read_topic(source, topic):
                yield decode(message)
        else:
            from ood_perception.ros.sources import open_source

            yield from open_source(source).frames()

    try:
        pipeline = Pipeline.from_profile(profile, device)
        score = pipeline.score
        if not hasattr(score, 'start'):
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
