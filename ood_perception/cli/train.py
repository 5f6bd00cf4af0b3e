# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood train`: uem, calibrate."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ood_perception.cli.common import Device, group

app = group("Train on your own robot's frames; resume by the same command.")

Data = Annotated[
    list[str],
    typer.Option(
        help='Frames, kind:path with kind folder, bag, cityscapes, mapillary, camvid or ade20k; a '
        'bare path is a folder with images/ and labels/. May be given several times.'
    ),
]
LabelMapOption = Annotated[
    str, typer.Option('--label-map', help='Shipped label map or YAML file, for all frames.')
]


@app.callback()
def show_progress() -> None:
    """Let the libraries tell how far they are."""
    logging.basicConfig(level=logging.INFO, format='%(message)s')


@app.command()
def uem(
    data: Data,
    out: Annotated[Path, typer.Option(help='Folder of the run; the same folder resumes it.')],
    objects: Annotated[str, typer.Option(help='Unknown objects to paste: folder of cut-outs.')],
    weights: Annotated[
        str, typer.Option(help="Weights to start from: file or name; default the preset's.")
    ] = '',
    preset: Annotated[
        str, typer.Option(help='All hyper-parameters by one name: compact or dinov2.')
    ] = 'compact',
    val: Annotated[
        str, typer.Option(help='Validation frames, like --data; none = no validation.')
    ] = '',
    val_objects: Annotated[
        str, typer.Option(help='Objects to paste into --val frames without unknown pixels.')
    ] = '',
    label_map: LabelMapOption = '',
    model: Annotated[str, typer.Option(help="Segmentor; default the preset's.")] = '',
    backbone: Annotated[str, typer.Option(help="The frozen backbone's own weights.")] = '',
    set_: Annotated[
        list[str], typer.Option('--set', help='Override one value, e.g. steps=500 or lr=1e-3.')
    ] = [],  # noqa: B006
) -> None:
    """Train the UEM of a trained network on your frames, with pasted unknown objects."""
    from ood_training import finishing, run
    from ood_training.data import open_objects
    from ood_training.presets import Preset, find_preset, override
    from ood_training.sources import open_frames

    chosen: Preset = find_preset(preset)
    chosen = dataclasses.replace(
        chosen, model=model or chosen.model, uem=override(chosen.uem, set_)
    )
    job = run.Job(
        preset=chosen,
        name=preset,
        folder=out,
        frames=[open_frames(text, 'train', label_map) for text in data],
        val_frames=open_frames(val, 'val', label_map) if val else None,
        objects=open_objects(objects),
        val_objects=open_objects(val_objects) if val_objects else None,
        weights=weights or chosen.weights,
        backbone=backbone,
        command=command_line(),
    )
    path, numbers = run.train_uem(job)
    typer.echo(f'{path}\n{finishing.finish_uem(job, path, numbers)}')


@app.command()
def calibrate(
    profile: Annotated[str, typer.Argument(help='Profile, by name or path; it is not changed.')],
    data: Data,
    out: Annotated[Path, typer.Option(help='Profile to write.')],
    label_map: LabelMapOption = '',
    kind: Annotated[str, typer.Option(help='platt or quantile.')] = 'platt',
    prevalence: Annotated[
        float, typer.Option(help='Share of unknown pixels meant by a probability; 0 = the data.')
    ] = 0.0,
    limit: Annotated[int, typer.Option(help='Frames used at most.', min=1)] = 200,
    device: Device = 'auto',
) -> None:
    """Fit the map from score to probability on labelled frames (254, or 1 with --label-map)."""
    from ood_perception.profile import Profile, find_profile
    from ood_training import calibrate as calibration
    from ood_training.data import evenly
    from ood_training.sources import open_frames

    path = find_profile(profile)
    frames = [open_frames(text, 'val', label_map) for text in data]
    chosen = [f.load(i) for f in frames for i in evenly(len(f), limit)]
    scores, labels = calibration.profile_scores(Profile.load(path), chosen, device)
    config, numbers = calibration.fit(scores, labels, kind, prevalence=prevalence)
    calibration.write_calibration(path, out, config)
    typer.echo(f'{out}: ' + ', '.join(f'{k} {v:.4g}' for k, v in numbers.items()))


def command_line() -> str:
    """Return the command line of this process, for the model card."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
