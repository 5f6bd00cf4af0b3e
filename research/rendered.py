# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Frames of the proving ground as training data, rendered once into a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ood_simulation.proving_ground import ProvingGround, SimulatedFrame
from ood_training.checkpointing import TrainingError
from ood_training.data import Frames
from ood_training.label_maps import load_label_map

FRAMES = 600
"""Frames of a drive that are drawn from: its first 20 seconds."""

RECIPE = 3
"""Raised with every change of what is rendered or chosen, so that older folders are refused."""


def render(
    folder: Path,
    seeds: range,
    per_seed: int = 3,
    sizes: Sequence[tuple[int, int]] = ((360, 480),),
    workers: int = 2,
    crowded: bool = False,
) -> Frames:
    """
    Render frames of many drives, or take those that an earlier call left in the folder.

    Labels are CamVid's 11 classes, 254 unknown, 255 void (soft edges, specks).

    Args:
        folder: gets `images`, `labels` and `rendered.json`.
        seeds: of the drives.
        per_seed: frames of each drive.
        sizes: (height, width) of cameras in pixels; the drives take turns with them. Not one
            resized to the other: a frame made smaller is sharper than a small camera's.
        workers: processes.
        crowded: up to 4 unknown things per 20 m of road, not the drive's own 0.25 to 0.9, and in
            every second frame a vehicle or a person comes near, so that few frames teach much;
            measure on drives that are not.

    Raises:
        TrainingError: the folder holds other frames.

    """
    wanted = {
        'recipe': RECIPE,
        'seeds': [seeds.start, seeds.stop, seeds.step],
        'per_seed': per_seed,
        'sizes': [list(size) for size in sizes],
        'crowded': crowded,
    }
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / 'rendered.json'
    if done.is_file():
        if json.loads(done.read_text()) != wanted:
            raise TrainingError(f'{folder}: holds other frames than {wanted}; delete it')
    else:
        for name in ('images', 'labels'):
            (folder / name).mkdir(exist_ok=True)
        jobs = [(folder, seed, per_seed, sizes[seed % len(sizes)], crowded) for seed in seeds]
        if workers > 1:
            # forked from a process with threads, a child can wait for a lock that nobody holds
            with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
                list(pool.map(_render_drive, jobs, chunksize=1))
        else:
            for job in jobs:
                _render_drive(job)
        done.write_text(json.dumps(wanted))
    images = sorted((folder / 'images').glob('*.png'))
    labels = [folder / 'labels' / path.name for path in images]
    return Frames(images, labels, load_label_map('camvid'), f'proving ground {seeds}')


def _render_drive(job: tuple[Path, int, int, tuple[int, int], bool]) -> None:
    folder, seed, per_seed, (height, width), crowded = job
    cv2.setNumThreads(1)
    names = [f'{seed:05d}_{i}.png' for i in range(per_seed)]
    if all((folder / 'labels' / name).is_file() for name in names):
        return
    for name, frame in zip(names, drawn(seed, per_seed, height, width, crowded), strict=True):
        label = np.where(frame.anomaly == 1, 254, frame.semantic)
        label = np.where(frame.anomaly == 255, 255, label).astype(np.uint8)
        Image.fromarray(frame.image).save(folder / 'images' / name, compress_level=1)
        Image.fromarray(label).save(folder / 'labels' / name, compress_level=1)


def drawn(
    seed: int, count: int, height: int, width: int, crowded: bool = False
) -> Iterator[SimulatedFrame]:
    """
    Frames of one drive, in their order.

    Args:
        seed: of the drive and of the choice.
        count: frames; after the first one they cost a tenth of it.
        height: of the camera in pixels.
        width: of the camera in pixels.
        crowded: see `render`.

    """
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, FRAMES, count)
    unknowns = float(rng.uniform(0.5, 4)) if crowded else None
    drive = ProvingGround(seed, width, height, unknowns=unknowns)
    if crowded:
        near = _near(drive, rng, count // 2)
        chosen[: len(near)] = near
    for index in sorted(chosen):
        yield drive.frame(int(index))


def _near(drive: ProvingGround, rng: np.random.Generator, count: int) -> list[int]:
    """Pick up to `count` frames, a second apart or more, where a known mover is nearest."""
    slope = drive.width / 2 / drive.focal
    found = []
    for index in rng.permutation(FRAMES)[:60]:
        t = float(index) / drive.rate
        pose = drive.scene.pose(t)
        distances = [
            thing.s - pose.s
            for thing in drive.scene.things(pose, t)
            if thing.kind in ('car', 'person', 'cyclist')
            and abs(thing.d - pose.d) < slope * (thing.s - pose.s) + 0.5
        ]
        found.append((min(distances, default=np.inf), int(index)))
    chosen: list[int] = []
    for _, index in sorted(found):
        if len(chosen) < count and all(abs(index - other) >= drive.rate for other in chosen):
            chosen.append(index)
    return chosen
