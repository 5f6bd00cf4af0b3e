# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood learn-normal`: let a novelty memory watch normal operation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from ood_perception.cli.options import Device, IntensityRange

SMALL = 0.002
"""Share of a frame from which something unknown is in it."""


class Unusual:
    """
    The frames that look least normal to what is not taught.

    Attributes:
        frames: number of those that show something unknown.
    """

    def __init__(self) -> None:
        self.frames = 0
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
        count, unusual = 0, Unusual()
        with bar('learning what is normal', limit or None) as show:
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
    except ValueError as error:
        raise fail(error) from None
    told(opened)
    stage = dataclasses.replace(pipeline.profile.score, weights=str(output.absolute()))
    path = output.with_suffix('.yaml')
    name = f'{pipeline.profile.name}_{output.stem}'
    dataclasses.replace(pipeline.profile, name=name, score=stage).save(path)
    CONSOLE.print(
        f'{count} frames, {score.size} tokens kept in {output}; use it with profile:={path}',
    )
    if unusual.frames > count / 2:
        sheet = output.with_suffix('.jpg')
        unusual.save(sheet)
        CONSOLE.print(
            f'warning: something unknown was in {unusual.frames} of {count} frames; what is here '
            f'all the time becomes normal. Look at {sheet}: if one of it should alarm, take it '
            'away and learn anew',
        )
