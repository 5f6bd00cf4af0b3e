# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Train the weights `compact` and `compact_free` in the vocabulary robot7.

    python -m research.robot7 compact --data ../shared/data --out runs/compact
    python -m research.robot7 compact_free --data ../shared/data --out runs/compact_free

The same command resumes an interrupted run. `compact` takes every source and goes on from weights
that are given; `compact_free` takes only pictures whose licence lets a company use the result, and
starts from the backbone's ImageNet weights alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ood_perception.checkpoints import read_checkpoint, resolve
from ood_training import run
from ood_training.checkpointing import TrainingError, write_weights
from ood_training.data import Frames
from ood_training.label_maps import load_label_map
from ood_training.parts import Parts
from ood_training.presets import override
from ood_training.sources import open_frames
from research import photographs, real_sets
from research.compact_data import Samples, load_pairs
from research.photographs import Photograph
from research.presets import PRESETS, PaperPreset
from research.rendered import render
from research.rooms import draw_room
from research.scenes import Scenes, Source, Things
from research.stages import run_stage

log = logging.getLogger(__name__)

VOCABULARY = load_label_map('robot7').classes

NAMES = ('camvid', 'idd_lite', 'lums_road', 'dhcn_indoor', 'coco_context', 'rendered', 'rooms')
"""Sources, as --leave-out takes them."""

INDEXED = ('idd_lite', 'lums_road', 'dhcn_indoor', 'coco_context')
"""Those that are folders of photographs with an INDEX.csv."""

WEIGHTS = {
    'compact': dict(zip(NAMES, (0.12, 0.14, 0.04, 0.18, 0.16, 0.31, 0.05), strict=True)),
    'compact_free': dict(zip(NAMES, (0, 0, 0.12, 0.22, 0.08, 0.43, 0.15), strict=True)),
}
"""Share of the samples that start from a source; 0 = not used."""

DRIVES, PER_DRIVE, ROOMS = 240, 6, 400

VAL_DRIVES = range(100_000, 100_030)
"""Seeds of the drives that are only validated on."""


@dataclass
class Material:
    """
    What one set of weights is trained on.

    Attributes:
        sources: weighted.
        things: that are pasted.
        used: photographs, for the licence and the attribution in the card.

    """

    sources: list[Source]
    things: Things
    used: list[Photograph] = field(default_factory=list)


def gather(name: str, data: Path, drawn: Path, leave_out: str = '') -> Material:
    """
    Open and check everything that a set of weights is trained on.

    Args:
        name: key of `WEIGHTS`.
        data: folder of the photographs' folders.
        drawn: folder of rendered frames and rooms; they are made where they are missing.
        leave_out: a source that is not used, to see what it is worth.

    Raises:
        TrainingError: what `photographs.read_index` and `photographs.load` refuse; for
            `compact_free` a picture without a free licence.

    """
    if leave_out and leave_out not in NAMES:
        raise TrainingError(f'leave out: expected one of {", ".join(NAMES)}, got {leave_out!r}')
    free = name == 'compact_free'
    weights = {k: w for k, w in WEIGHTS[name].items() if w and k != leave_out}
    used: list[Photograph] = []
    sources = []
    for each, weight in weights.items():
        source, chosen = open_source(each, weight, data, drawn, free)
        sources.append(source)
        used += chosen
    pasted = [cutout for found in cutouts(data, free) for cutout in found]
    return Material(sources, Things.collect(pasted, sources), used)


def open_source(
    name: str, weight: float, data: Path, drawn: Path, free: bool = False
) -> tuple[Source, list[Photograph]]:
    """Open one source of `NAMES`; also returns its photographs, see :func:`gather`."""
    chosen: list[Photograph] = []
    if name in INDEXED:
        chosen = training_part(name, photographs.read_index(data / name), free)
        pairs = photographs.load(chosen, sharpen=0.8 if name == 'idd_lite' else 0)
    else:
        pairs = _other(name, data, drawn)
    return Source(name, weight, pairs, **VIEWS.get(name, {})), chosen


def cutouts(data: Path, free: bool) -> list[list[np.ndarray]]:
    """Cut-outs of unknown things that are trained on, of every folder of them."""
    return [
        photographs.load_cutouts(data / folder, held_out=False, free=free)
        for folder in ('outliers_train', 'outliers_more')
    ]


VIEWS: dict[str, dict[str, Any]] = {
    'idd_lite': {'closer': 1.0, 'nearest': 1.35, 'void_vehicles': 0.5},
    'coco_context': {'closer': 1.0},
    'lums_road': {'cut': False},
    'rooms': {'cut': False},
}
"""How sources are looked at: small pictures whole, see `scenes.Source`."""


def training_part(source: str, found: Sequence[Photograph], free: bool) -> list[Photograph]:
    """
    Choose the photographs of a folder that are trained on.

    Of coco_context, where every picture has its own licence, the free ones are chosen; a folder
    that has one licence is free or refused.

    Raises:
        TrainingError: `free`, and the folder is not.

    """
    chosen = [p for p in found if p.split == 'train']
    if source == 'coco_context':
        chosen = [p for p in chosen if not photographs.in_held_out_fifth(p.key)]
        if free:
            chosen = [p for p in chosen if p.licence in photographs.FREE_LICENCES]
    return photographs.only_free(chosen) if free else chosen


def _other(source: str, data: Path, drawn: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    in_robot7 = load_label_map('camvid_robot7')
    if source == 'camvid':
        frames = open_frames(f'camvid:{data / "camvid_train"}', 'train', 'camvid_robot7')
        return load_pairs(frames, leave_out=real_sets.DRIVE)
    if source == 'rendered':
        frames = render(
            drawn / 'train', range(DRIVES), PER_DRIVE, ((480, 640),), workers=2, crowded=True
        )
        return load_pairs(dataclasses.replace(frames, label_map=in_robot7))
    return rooms(drawn / 'rooms', ROOMS)


def rooms(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw `count` rooms into a folder, or take those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    for number in range(count):
        image_path, label_path = folder / f'{number:04d}.jpg', folder / f'{number:04d}.png'
        if not label_path.is_file():
            image, label = draw_room(np.random.default_rng((17, number)))
            cv2.imwrite(str(image_path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
            cv2.imwrite(str(label_path), label)
        image = cv2.imread(str(image_path))[..., ::-1]
        pairs.append((np.ascontiguousarray(image), cv2.imread(str(label_path), 0)))
    return pairs


class RealValidation:
    """The mean AP on the real sets, as a validation of a stage."""

    def __init__(self, sets: Mapping[str, Any], most: int = 20) -> None:
        self.sets, self.most = sets, most

    def __call__(self, parts: Parts) -> dict[str, float]:
        """Return 'mean' and every set's AP."""
        sets = {k: v for k, v in self.sets.items() if v}
        threads = torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            scored = real_sets.score_sets(real_sets.Scores(parts.model), sets, self.most)
        finally:
            torch.set_num_threads(threads)
        measured = real_sets.numbers(scored)
        found = {'mean': real_sets.mean_ap(measured)}
        for name, values in measured.items():
            found |= {f'{name} {key}': values[key] for key in ('ap', 'fpr95')}
        return found


def start_from(weights: str, target: Path) -> Path:
    """
    Write weights of 11 CamVid classes as a start in robot7: rows of the head become means.

    Weights that are in robot7 already are taken as they are.
    """
    state = dict(read_checkpoint(resolve(weights)))
    if len(state['fpn.head.weight']) != len(VOCABULARY):
        table = load_label_map('camvid_robot7').table[: len(state['fpn.head.weight'])]
        for key in ('fpn.head.weight', 'fpn.head.bias'):
            rows = [torch.from_numpy(table == c) for c in range(len(VOCABULARY))]
            state[key] = torch.stack([state[key][row].mean(0) for row in rows])
    write_weights(target, state)
    return target


def train(
    preset: PaperPreset,
    folder: Path,
    material: Material,
    validation: RealValidation | None,
    weights: str = '',
) -> Path:
    """
    Train the class head, then the UEM; returns the path of the weights.

    Args:
        preset: of both stages.
        folder: of the run.
        material: what is trained on.
        validation: picks the weights of the UEM, None = the last ones.
        weights: to start from, '' = random heads on the ImageNet backbone.

    """
    preset = dataclasses.replace(preset, options={'classes': len(VOCABULARY)})
    folder.mkdir(parents=True, exist_ok=True)
    if weights:
        weights = str(start_from(weights, folder / 'start.safetensors'))
    makers = [(s.weight, s.pairs, Scenes(s, material.things)) for s in material.sources]
    frames = [Frames([], [], load_label_map('robot7'), 'robot7')]
    for kind in ('segmentor', 'uem'):
        path = folder / kind / 'weights.safetensors'
        if not path.is_file():
            samples = Samples(makers, 4000, getattr(preset, kind).trainer.seed)
            job = run.Job(preset, 'compact', folder, frames, weights=weights)
            run_stage(job, kind, samples, validation if kind == 'uem' else None)
        weights = str(path)
    return Path(weights)


def main() -> None:
    """Train one set of weights."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('name', choices=sorted(WEIGHTS))
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--drawn', type=Path, help='rendered frames and rooms; default OUT/drawn')
    parser.add_argument('--weights', default='', help='to start from (compact only)')
    parser.add_argument('--leave-out', default='', choices=('', *NAMES))
    parser.add_argument('--segmentor-set', action='append', default=[], metavar='KEY=VALUE')
    parser.add_argument('--uem-set', action='append', default=[], metavar='KEY=VALUE')
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    if arguments.name == 'compact_free' and arguments.weights:
        parser.error('compact_free starts from the ImageNet backbone: nobody knows what other '
                     'weights have seen')  # fmt: skip
    drawn = arguments.drawn or arguments.out / 'drawn'
    material = gather(arguments.name, arguments.data, drawn, arguments.leave_out)
    for source in material.sources:
        log.info('%s: %d frames, weight %g', source.name, len(source.pairs), source.weight)
    things = material.things
    log.info('%d cut-outs, %d unknown things and %d known ones from the frames',
             len(things.cutouts), len(things.own), len(things.known))  # fmt: skip
    val = load_pairs(render(drawn / 'val', VAL_DRIVES, 3, workers=2))
    sets = real_sets.photographed(arguments.data, real_sets.as_unknown(val))
    preset = PRESETS['compact']
    preset = dataclasses.replace(
        preset,
        segmentor=override(preset.segmentor, ['steps=500', *arguments.segmentor_set]),
        uem=override(preset.uem, ['monitor=mean', 'validate_every=1000', *arguments.uem_set]),
    )
    weights = train(preset, arguments.out, material, RealValidation(sets), arguments.weights)
    log.info('%s', weights)


if __name__ == '__main__':
    main()
