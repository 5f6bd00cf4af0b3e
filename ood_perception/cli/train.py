# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood train`: segmentor, uem, prompts, calibrate, compact."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ood_perception.cli.train_masks import masks

app = typer.Typer(
    no_args_is_help=True, help="Train on your own robot's frames; resume by the same command."
)

app.command()(masks)

Data = Annotated[
    list[str],
    typer.Option(
        help='Training frames, kind:path with kind cityscapes, mapillary, camvid, ade20k, folder '
        'or bag; a bare path is a folder with images/ and labels/. May be given several times.'
    ),
]
Val = Annotated[str, typer.Option(help='Validation frames, like --data; none = no validation.')]
LabelMapOption = Annotated[
    str, typer.Option('--label-map', help='Shipped label map or YAML file, for --data and --val.')
]
ObjectsOption = Annotated[
    str, typer.Option(help='Unknown objects to paste: rgba:folder of cut-outs, or coco:folder.')
]
Out = Annotated[Path, typer.Option(help='Folder of the run; the same folder resumes it.')]
PresetOption = Annotated[str, typer.Option('--preset', help='All hyper-parameters by one name.')]
Set = Annotated[
    list[str], typer.Option('--set', help='Override one of them, e.g. steps=500 or lr=1e-3.')
]
Weights = Annotated[str, typer.Option(help='Weights to start from: file, catalogue name.')]
Cache = Annotated[
    int, typer.Option(help='Keep the frozen features of so many samples on disk; 0 = none.')
]


@app.command()
def segmentor(
    data: Data,
    out: Out,
    preset: PresetOption = 'uem_gd',
    val: Val = '',
    label_map: LabelMapOption = '',
    model: Annotated[str, typer.Option(help="Segmentor; default the preset's.")] = '',
    backbone: Annotated[str, typer.Option(help="The frozen backbone's own weights.")] = '',
    weights: Weights = '',
    cache: Cache = 0,
    set_: Set = [],  # noqa: B006
) -> None:
    """Stage 1: train decoder and head for the known classes on a frozen backbone."""
    with _Errors():
        from ood_perception.training import finishing, run

        job = _job(preset, 'segmentor', data, val, label_map, '', out, model, set_, cache)
        job.weights, job.backbone = weights, backbone
        path, numbers = run.run_stage(job, 'segmentor')
        profile = finishing.finish(job, path, numbers, score='max_logit')
        typer.echo(f'{path}\n{profile}')


@app.command()
def uem(
    data: Data,
    out: Out,
    objects: ObjectsOption,
    weights: Annotated[str, typer.Option(help='Weights of the segmentor (stage 1).')] = '',
    preset: PresetOption = 'uem_gd',
    val: Val = '',
    val_objects: Annotated[
        str, typer.Option(help='Objects to paste into --val frames without unknown pixels.')
    ] = '',
    label_map: LabelMapOption = '',
    model: Annotated[str, typer.Option(help="Segmentor; default the preset's.")] = '',
    backbone: Annotated[str, typer.Option(help="The frozen backbone's own weights.")] = '',
    paper: Annotated[
        bool, typer.Option('--paper', help='Reproduce the official BatchNorm drift.')
    ] = False,
    cache: Cache = 0,
    set_: Set = [],  # noqa: B006
) -> None:
    """Stage 2: train the UEM on a frozen segmentor, with pasted unknown objects."""
    with _Errors():
        from ood_perception.training import finishing, run
        from ood_perception.training.objects import open_objects

        changes = [*set_, *(['paper=true'] if paper else [])]
        job = _job(preset, 'uem', data, val, label_map, objects, out, model, changes, cache)
        job.weights, job.backbone = weights, backbone
        job.val_objects = open_objects(val_objects) if val_objects else None
        path, numbers = run.run_stage(job, 'uem')
        typer.echo(f'{path}\n{finishing.finish_uem(job, path, numbers)}')


@app.command()
def prompts(
    out: Out,
    data: Annotated[list[str], typer.Option(help='Frames to paste objects into.')] = [],  # noqa: B006
    objects: Annotated[str, typer.Option(help='Unknown objects to paste; see uem.')] = '',
    profile: Annotated[
        str, typer.Option(help='Whose maps to learn from; none = likely maps made of the truth.')
    ] = '',
    preset: Annotated[
        str, typer.Option(help='light (minutes on a CPU), or s2m (the published detector).')
    ] = 'light',
    scores: Annotated[
        Path | None, typer.Option(help="s2m: folder of score maps in S2M's layout.")
    ] = None,
    seconds: Annotated[float, typer.Option(help='light: time to train.')] = 240.0,
    count: Annotated[int, typer.Option(help='Score maps made where a profile is given.')] = 2858,
    weights: Weights = '',
    set_: Set = [],  # noqa: B006
) -> None:
    """Train the prompt generator: boxes from score maps."""
    with _Errors():
        from ood_perception.training import prompt_runs
        from ood_perception.training.objects import open_objects
        from ood_perception.training.presets import find_preset, override

        if preset == 'light':
            file = out / 'light_prompts.safetensors'
            typer.echo(prompt_runs.train_light(data, Path(objects), profile, file, seconds, count))
            return
        stage = override(find_preset(preset).prompts, set_)
        things = open_objects(objects) if objects else None
        typer.echo(
            prompt_runs.train_s2m(stage, out, scores, data, things, profile, count, weights)
        )


@app.command()
def calibrate(
    profile: Annotated[str, typer.Argument(help='Profile, by name or path.')],
    data: Data,
    out: Annotated[
        Path | None, typer.Option(help='Profile to write; default: change the file itself.')
    ] = None,
    label_map: LabelMapOption = '',
    kind: Annotated[str, typer.Option(help='platt or quantile.')] = 'platt',
    prevalence: Annotated[
        float, typer.Option(help='Share of unknown pixels meant by a probability; 0 = the data.')
    ] = 0.0,
    most: Annotated[int, typer.Option(help='Frames used at most.')] = 200,
    device: Annotated[str, typer.Option(help='auto, cpu or cuda.')] = 'auto',
) -> None:
    """Fit the map from score to probability on labelled frames (254, or 1 with --label-map)."""
    with _Errors():
        import shutil

        import numpy as np

        from ood_perception.profile import Profile, find_profile
        from ood_perception.training import calibrate as calibration
        from ood_perception.training.sources import open_frames

        path = find_profile(profile)
        frames = [open_frames(text, 'val', label_map) for text in data]
        chosen = [
            f.load(int(i))
            for f in frames
            for i in np.unique(np.linspace(0, len(f) - 1, min(most, len(f))).astype(int))
        ]
        scores, labels = calibration.profile_scores(Profile.load(path), chosen, device)
        config, numbers = calibration.fit(scores, labels, kind, prevalence=prevalence)
        target = out or path
        if out is not None:
            shutil.copy(path, out)
        calibration.write_calibration(target, config)
        typer.echo(f'{target}: ' + ', '.join(f'{k} {v:.4g}' for k, v in numbers.items()))


@app.command()
def compact(
    out: Out,
    data: Annotated[str, typer.Option(help="Frames with CamVid's 11 classes, kind:path.")],
    val: Val,
    objects: Annotated[Path, typer.Option(help='Cut-outs with an INDEX.csv.')],
    leave_out: Annotated[
        str, typer.Option(help='Training frames whose name begins so are for validation only.')
    ] = '0016E5',
    drives: Annotated[
        int, typer.Option(help='Drives of the proving ground to render; 0 = none.')
    ] = 400,
    per_drive: Annotated[int, typer.Option(help='Frames of each.', min=1)] = 6,
    share: Annotated[float, typer.Option(help='Of samples from the proving ground.')] = 0.7,
    weights: Annotated[
        str, typer.Option(help='Go on from these (head and UEM); only the UEM is trained.')
    ] = '',
    keep: Annotated[
        float, typer.Option(min=0, max=1, help='Share of --weights in the result: a mean of both.')
    ] = 0.0,
    cache: Cache = 0,
    segmentor_set: Annotated[list[str], typer.Option(help='Override a value of stage 1.')] = [],  # noqa: B006
    uem_set: Annotated[list[str], typer.Option(help='Override a value of stage 2.')] = [],  # noqa: B006
) -> None:
    """Train the compact network on a CPU: head, UEM, calibration; weights, card, profile."""
    with _Errors():
        from ood_perception.training.compact import CompactData, train_compact
        from ood_perception.training.presets import find_preset, override

        preset = find_preset('compact')
        cached = [f'cache={cache}'] if cache else []
        preset = dataclasses.replace(
            preset,
            segmentor=override(preset.segmentor, [*cached, *segmentor_set]),
            uem=override(preset.uem, [*cached, *uem_set]),
        )
        parts = CompactData(
            data, val, objects, leave_out, drives, per_drive, share, weights=weights, keep=keep
        )
        typer.echo(train_compact(parts, preset, out, shlex.join(['ood', *sys.argv[1:]])))


def _job(
    preset: str,
    kind: str,
    data: list[str],
    val: str,
    label_map: str,
    objects: str,
    out: Path,
    model: str,
    changes: list[str],
    cache: int,
) -> Any:
    from ood_perception.training import run
    from ood_perception.training.objects import open_objects
    from ood_perception.training.presets import find_preset, override
    from ood_perception.training.sources import open_frames

    chosen = find_preset(preset)
    stage = override(getattr(chosen, kind), [*changes, *([f'cache={cache}'] if cache else [])])
    stages: dict[str, Any] = {kind: stage}
    chosen = dataclasses.replace(chosen, model=model or chosen.model, **stages)
    frames = [open_frames(text, 'train', label_map) for text in data]
    val_frames = open_frames(val, 'val', label_map) if val else None
    sources = [run.describe(f, 'training') for f in frames]
    sources += [run.describe(val_frames, 'validation')] if val_frames else []
    if objects:
        sources.append({'role': 'unknown objects', 'from': objects})
    return run.Job(
        preset=chosen,
        name=preset,
        folder=out,
        frames=frames,
        val_frames=val_frames,
        objects=open_objects(objects) if objects else None,
        command=shlex.join(['ood', *sys.argv[1:]]),
        sources=sources,
    )


class _Errors:
    """Turn what a user can put right into one red line; show the progress of the libraries."""

    def __enter__(self) -> None:
        logging.basicConfig(level=logging.INFO, format='%(message)s')

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from ood_perception.profile import ProfileError
        from ood_perception.training.checkpointing import TrainingError

        if isinstance(error, (TrainingError, ProfileError)):
            _fail(error)


def _fail(error: BaseException) -> NoReturn:
    typer.secho(f'error: {error}', fg='red', err=True)
    raise typer.Exit(1) from None
