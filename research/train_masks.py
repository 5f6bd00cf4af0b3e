# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Command that trains the mask head and the detectors on the score maps of a profile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from research.commands import command_line, errors_in_one_line
from research.masks import MaskData, train_masks


def masks(
    out: Annotated[Path, typer.Option(help='Folder of the weights and their cards.')],
    frames: Annotated[
        Path | None, typer.Option(help='Frames without unknowns, INDEX.csv with image, sequence.')
    ] = None,
    objects: Annotated[Path | None, typer.Option(help='Cut-outs with an INDEX.csv.')] = None,
    profile: Annotated[
        str, typer.Option(help="Whose score maps to learn from; '' = likely ones of the truth.")
    ] = 'compact',
    leave_out: Annotated[
        str, typer.Option(help='Sequence of the frames that is only validated on.')
    ] = '',
    scenes: Annotated[int, typer.Option(min=0, help='Scenes with pasted objects.')] = 400,
    drives: Annotated[int, typer.Option(min=0, help='Rendered scenes.')] = 150,
    photographs: Annotated[
        Path | None, typer.Option(help='Folder of dhcn_indoor and coco_context.')
    ] = None,
    free: Annotated[bool, typer.Option(help='Only photographs of a free licence.')] = False,
    validation: Annotated[int, typer.Option(min=0, help='Scenes to measure on.')] = 40,
    prompts_steps: Annotated[
        int, typer.Option(min=0, help='Steps of the light prompts; 0 = leave them out.')
    ] = 5000,
    head_steps: Annotated[
        int, typer.Option(min=0, help='Steps of the mask head; 0 = leave it out.')
    ] = 3500,
    detection_steps: Annotated[
        int, typer.Option(min=0, help='Steps of the detection head; 0 = leave it out.')
    ] = 0,
    start: Annotated[Path | None, typer.Option(help='Folder with weights to go on from.')] = None,
    seed: int = 0,
) -> None:
    """Train the networks of the masks stage: outlines, and boxes from score maps."""
    with errors_in_one_line():
        data = MaskData(
            frames,
            objects,
            profile,
            leave_out,
            scenes,
            drives,
            photographs,
            free=free,
            validation=validation,
            seed=seed,
        )
        written = train_masks(
            data,
            out,
            prompts_steps,
            head_steps,
            detection_steps,
            command_line(),
            start,
            progress=_Report(),
        )
    for path in written.values():
        typer.echo(f'{path}\n{path.with_suffix(".md")}')


class _Report:
    """Print a line when a new thing begins and every ten seconds."""

    def __init__(self) -> None:
        self.what, self.when = '', 0.0

    def __call__(self, what: str, done: float) -> None:
        if what != self.what or time.monotonic() - self.when > 10:
            self.what, self.when = what, time.monotonic()
            typer.echo(f'{what}: {done:.0%}')


if __name__ == '__main__':
    typer.run(masks)
