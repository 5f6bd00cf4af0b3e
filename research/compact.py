# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The compact network from frames to a profile, in one command on two CPU cores.

Frames of a drive with classes, cut-out objects and the proving ground make the samples; the FPN
head is trained, then the UEM, then the calibration is fitted on frames and objects that training
never saw.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ood_perception.checkpoints import read_checkpoint, resolve
from ood_perception.checkpoints.store import sha256_of
from ood_perception.labels import label_of
from ood_perception.training import cards, finishing, run
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.presets import find_preset, override
from ood_perception.training.sources import open_frames
from ood_perception.training.uem import Validate
from ood_perception.training.validation import Validation, pixel_numbers
from research.averaging import average
from research.commands import Cache, Out, command_line, errors_in_one_line
from research.compact_data import Pairs, Samples, load_pairs
from research.outlier_exposure import Exposure, load_objects, validation_set
from research.presets import PRESETS, PaperPreset
from research.rendered import render
from research.segmentor import ClassValidation
from research.stages import check_frames, run_stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompactData:
    """
    What the compact recipe is made of.

    Attributes:
        frames: training frames with CamVid's 11 classes, as `sources.open_frames` takes them.
        val: validation frames.
        objects: folder of RGBA cut-outs with an INDEX.csv.
        leave_out: training frames whose name begins so serve the validation instead (a drive).
        drives: seeds of the proving ground that training renders; 0 = none.
        per_drive: frames of each.
        share: of training samples that come from the proving ground.
        workers: processes that render.
        sizes: (height, width) of the cameras that are rendered; views are cut from their frames.
        weights: of an earlier run, head and UEM: the UEM goes on from there, the head stays.
        keep: share of those weights in the result, 0..1, see `averaging.average`.

    """

    frames: str
    val: str
    objects: Path
    leave_out: str = ''
    drives: int = 400
    per_drive: int = 6
    share: float = 0.7
    workers: int = 2
    sizes: tuple[tuple[int, int], ...] = ((480, 640),)
    weights: str = ''
    keep: float = 0.0


VAL_DRIVES = range(100_000, 100_030)
"""Seeds of the proving ground kept for validation."""


def train_compact(data: CompactData, preset: PaperPreset, folder: Path, command: str = '') -> Path:
    """
    Train the compact network; the same call resumes an interrupted run.

    Args:
        data: frames, objects, drives.
        preset: `presets.PRESETS['compact']`, perhaps with changes.
        folder: of the run; gets compact.safetensors, compact.md and compact.yaml.
        command: the command line, for the card.

    Returns:
        Path of the profile.

    Raises:
        TrainingError: see `stages.run_stage`.

    """
    start = time.monotonic()
    if data.keep and not data.weights:
        raise TrainingError('keep: there is no start to keep a share of; name its weights')
    origin = _origin(data.weights) if data.weights else {}
    frames = open_frames(data.frames, 'train')
    val_frames = open_frames(data.val, 'val')
    job = run.Job(preset, 'compact', folder, [frames], val_frames, command=command)
    check_frames(job, 'segmentor')
    held_in = load_pairs(frames, leave_out=data.leave_out)
    held_out = load_pairs(val_frames)
    if data.leave_out:
        held_out = load_pairs(frames, only=data.leave_out)[::4] + held_out[::2]
    simulated = val_simulated = None
    if data.drives:
        seeds = range(data.drives)
        cache = folder / 'proving_ground'
        simulated = render(
            cache / 'train', seeds, data.per_drive, data.sizes, data.workers, crowded=True
        )
        val_simulated = render(cache / 'val', VAL_DRIVES, 3, workers=data.workers)
    objects = load_objects(data.objects, held_out=False)
    exposures = [(1.0, held_in, Exposure(held_in, objects))]
    if simulated:
        rendered = load_pairs(simulated)
        other = Exposure(rendered, objects, most=500)
        other.things = [*exposures[0][2].things, *other.things]
        exposures = [(1 - data.share, *exposures[0][1:]), (data.share, rendered, other)]
    pasted = validation_set(held_out, load_objects(data.objects, held_out=True))
    val_sets = {'pasted': Pairs([(image, label_of(label)) for image, label in pasted])}
    if val_simulated:
        val_sets['proving ground'] = Pairs(load_pairs(val_simulated))

    job.sources = [run.describe(f, 'training') for f in (frames, simulated) if f]
    job.sources += [run.describe(f, 'validation') for f in (val_frames, val_simulated) if f]
    job.sources += [{'role': 'unknown objects', 'from': str(data.objects)}]
    stages = [('segmentor', 'known'), ('uem', 'outlier')]
    if data.weights:
        job.weights, stages = data.weights, stages[1:]
        job.sources += [origin]
    numbers: dict[str, float] = {}
    for kind, method in stages:
        stage = getattr(preset, kind)
        makers = [(share, pairs, getattr(e, method)) for share, pairs, e in exposures]
        samples = Samples(makers, 4000, stage.trainer.seed)
        validation: Validate = (
            ClassValidation(Pairs(held_out))
            if kind == 'segmentor'
            else Validation(val_sets['pasted'])
        )
        weights, measured = run_stage(job, kind, samples, validation)
        numbers |= {f'{kind} {name}': value for name, value in measured.items()}
        job.weights = str(weights)
    if data.keep:
        target = folder / 'uem' / 'averaged.safetensors'
        weights = average(data.weights, weights, data.keep, target)
    return _finish(job, weights, numbers, val_sets, start)


def _origin(weights: str) -> dict[str, str]:
    try:
        return {'role': 'start', 'weights': weights, 'sha256': sha256_of(resolve(weights))}
    except OSError as error:
        raise TrainingError(f'weights: {error}') from error


def _finish(
    job: run.Job,
    weights: Path,
    numbers: dict[str, float],
    val_sets: dict[str, Any],
    start: float,
) -> Path:
    """Measure on every validation set, calibrate on all of them, write the files."""
    parts = run.build(dataclasses.replace(job, weights=str(weights)))
    all_scores, all_labels = [], []
    with torch.inference_mode():
        for name, pairs in val_sets.items():
            scores, labels = Validation(pairs).scores(parts)
            measured = pixel_numbers(scores, labels)
            numbers |= {f'{name} {key}': value for key, value in measured.items()}
            all_scores += scores
            all_labels += labels
    numbers['minutes'] = (time.monotonic() - start) / 60
    target = job.folder / 'compact.safetensors'
    # Replaced, not written over: a node that has the file mapped keeps what it loaded.
    cards.write_weights(target, read_checkpoint(weights))
    return finishing.finish(job, target, numbers, all_scores, all_labels)


def command(
    out: Out,
    data: Annotated[str, typer.Option(help="Frames with CamVid's 11 classes, kind:path.")],
    val: Annotated[str, typer.Option(help='Validation frames, like --data.')],
    objects: Annotated[Path, typer.Option(help='Folder of cut-outs with an INDEX.csv.')],
    leave_out: Annotated[
        str,
        typer.Option(
            help='Training frames whose name begins so are for validation only; 0016E5 is the '
            'drive that the shipped weights were validated on.'
        ),
    ] = '',
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
    with errors_in_one_line():
        preset = find_preset('compact', PRESETS)
        cached = [f'cache={cache}'] if cache else []
        preset = dataclasses.replace(
            preset,
            segmentor=override(preset.segmentor, [*cached, *segmentor_set]),
            uem=override(preset.uem, [*cached, *uem_set]),
        )
        parts = CompactData(
            data, val, objects, leave_out, drives, per_drive, share, weights=weights, keep=keep
        )
        typer.echo(train_compact(parts, preset, out, command_line()))


if __name__ == '__main__':
    typer.run(command)
