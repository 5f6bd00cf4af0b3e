# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
All scores on the same frames with the compact backbone: AP, FPR95, AUROC, milliseconds, flicker.

    python benchmarks/score_table.py --data DATA --output benchmarks/results/score_table.csv

Frames: rendered drives, and, where `--data` names a folder of camvid_train, camvid_val and
outliers_train, held-out objects pasted on a drive of CamVid that training did not see. There each
frame is a stream of its own: two frames of the drive without the object come before it, so that
streaming clusters have a past. Scores with statistics (SML, Mahalanobis, k-NN, novelty) are fitted
on known frames of other places; the rows `on site` learn from the same place without unknown
objects, as a robot does. Fusions are calibrated on frames and objects that are not scored.

Flicker: a standing camera, each frame again with new sensor noise (3 of 255), so that every pixel
is static; mean absolute change of the score over its standard deviation in the frame.
`--quick` takes a fraction of everything, to try the script.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline_scores import Fusion, Mahalanobis, StandardizedMaxLogit

from ood_evaluation.pixel_metrics import PixelMetrics
from ood_perception.building import load_segmentor
from ood_perception.engines import create_engine
from ood_perception.frames.transfer import as_frame, normalise
from ood_perception.models.output import SegmentorOutput
from ood_perception.profile import Profile
from ood_perception.scores import create_score
from ood_simulation import ProvingGround
from ood_training.fits import fit_platt

Pair = tuple[np.ndarray, np.ndarray]
DRIVE = '0016E5'
STAGES = [1, 2, 3]
STATELESS = (
    'llr', 'uem', 'max_logit', 'max_softmax', 'entropy', 'energy', 'max_logit_minus_mean'
)  # fmt: skip


@dataclass
class Frames:
    """
    What one block of the table is made of; images uint8 (H, W, 3), labels 0, 1, 255.

    Attributes:
        cases: stream, frames of it that are only watched, image and label that are scored.
        known: images without unknown objects, of other places.
        site: images without unknown objects, of the same places.
        calibration: labelled frames that are not among the cases.
        standing: images for the flicker.

    """

    cases: list[tuple[str, list[np.ndarray], np.ndarray, np.ndarray]]
    known: list[np.ndarray]
    site: list[np.ndarray]
    calibration: list[Pair]
    standing: list[np.ndarray]


class Network:
    """The compact network of a profile at the frames' own size."""

    def __init__(self, profile: str) -> None:
        self.model = load_segmentor(Profile.load(profile))
        cpu = torch.device('cpu')
        self.engine = create_engine('auto', self.model, cpu, features=True)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> SegmentorOutput:
        batch = as_frame(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        return self.engine(normalise(batch, self.model.spec))


def rendered(drives: int, per_drive: int) -> Frames:
    """
    Frames 0.1 s apart of each drive from its first unknown object on, seeds from 2000.

    Other places have seeds from 1900.
    """
    cases, site, standing = [], [], []
    for seed in range(2000, 2000 + drives):
        ground = ProvingGround(seed, 480, 360)
        first = next((i for i in range(60, 900, 30) if something(ground.frame(i).anomaly)), 120)
        for i in range(per_drive):
            frame = ground.frame(first + 3 * i)
            cases.append((f'drive {seed}', [], frame.image, frame.anomaly))
        standing.append(cases[-1][2])
        empty = ProvingGround(seed, 480, 360, unknowns=0)
        site += [empty.frame(index).image for index in (60, 110, 160)]
    known, labelled = [], []
    for seed in range(1900, 1900 + max(4, 2 * drives)):
        known.append(ProvingGround(seed, 480, 360, unknowns=0).frame(120).image)
        ground = ProvingGround(seed, 480, 360)
        found = next(
            (f for f in map(ground.frame, range(60, 900, 60)) if something(f.anomaly)), None
        )
        if found is not None:
            labelled.append((found.image, found.anomaly))
    return Frames(cases, known, site, labelled, standing)


def something(label: np.ndarray) -> bool:
    """Whether there is an unknown object worth the name: 300 pixels."""
    return int((label == 1).sum()) >= 300


def pasted(data: Path, count: int) -> Frames:
    """Held-out objects on the drive 0016E5; the other drives are known."""
    import checkout  # noqa: F401

    from ood_training.sources import open_frames
    from research.compact_data import load_pairs
    from research.outlier_exposure import load_objects, validation_set

    drive = load_pairs(open_frames(f'camvid:{data / "camvid_val"}', 'val'))
    train = open_frames(f'camvid:{data / "camvid_train"}', 'train')
    others = load_pairs(train, leave_out=DRIVE)
    objects = data / 'outliers_train'
    chosen = np.unique(np.linspace(2, len(drive) - 1, count).astype(int)).tolist()
    scored = validation_set([drive[i] for i in chosen], load_objects(objects, held_out=True))
    cases = [
        (f'frame {i}', [drive[i - 2][0], drive[i - 1][0]], image, label)
        for i, (image, label) in zip(chosen, scored, strict=True)
    ]
    few = max(1, len(others) // count)
    known = [image for image, _ in others[::few]]
    site = [image for image, _ in load_pairs(train, only=DRIVE)[:: max(2, 204 // count)]]
    apart = others[few // 2 :: few][:24]
    labelled = validation_set(apart, load_objects(objects, held_out=False))
    standing = [case[2] for case in cases[:: max(1, len(cases) // 6)]]
    return Frames(cases, known, site, labelled, standing)


def make_scores(network: Network, frames: Frames, clusters: Iterable[int]) -> dict[str, Any]:
    """Every score, the fitted ones fitted."""
    made: dict[str, Any] = {name: create_score(name) for name in STATELESS}
    outputs = [network(image) for image in frames.known]
    made['sml'] = StandardizedMaxLogit(outputs)
    made['mahalanobis'] = Mahalanobis(outputs, STAGES)
    for name in ('knn', 'novelty'):
        for where, seen in (('', outputs), (' on site', [network(i) for i in frames.site])):
            memory = create_score(name, stages=STAGES)
            memory.start()
            for output in seen:
                memory.learn(output)
            memory.stop()
            made[name + where] = memory
    for number in clusters:
        for weight in (0.5, 0.8, 1.0):
            options = {'n_clusters': number, 'stages': STAGES, 'weight': weight}
            name = f'clusters {number} w {weight}'
            made[f'{name} streaming'] = create_score('clusters', **options)
            made[f'{name} per image'] = create_score('clusters', streaming=False, **options)
    memory_file = Path(tempfile.mkdtemp()) / 'normal.safetensors'
    made['novelty'].save(str(memory_file))
    novelty = {'name': 'novelty', 'options': {'stages': STAGES, 'weights': str(memory_file)}}
    for first in ('llr', 'max_logit'):
        parts = calibrated(network, frames.calibration, [{'name': first}, novelty])
        made[f'fusion {first} + novelty'] = Fusion(parts)
    return made


def calibrated(network: Network, pairs: list[Pair], parts: list[dict]) -> list[dict]:
    """The parts of a fusion with Platt maps fitted on labelled frames (every 8th pixel)."""
    done = []
    for part in parts:
        score = create_score(part['name'], **part.get('options', {}))
        values = [score(network(image), image.shape[:2])[0].numpy() for image, _ in pairs]
        labels = [label for _, label in pairs]
        found = fit_platt(np.stack(values)[:, ::8, ::8], np.stack(labels)[:, ::8, ::8])
        done.append({**part, 'calibration': {'slope': found.slope, 'offset': found.offset}})
    return done


def flicker_of(network: Network, made: dict[str, Any], images: list[np.ndarray]) -> dict:
    """Mean change of each score between two views of a standing camera, see above."""
    changes: dict[str, list[float]] = {name: [] for name in made}
    for number, image in enumerate(images):
        rng = np.random.default_rng(number)
        before: dict[str, torch.Tensor] = {}
        for _ in range(6):
            noisy = image + rng.normal(0, 3, image.shape)
            output = network(noisy.round().clip(0, 255).astype(np.uint8))
            for name, score in made.items():
                found = score(output, image.shape[:2], [f'standing {number}'])[0]
                if name in before:
                    change = (found - before[name]).abs().mean() / found.std().clamp_min(1e-6)
                    changes[name].append(float(change))
                before[name] = found
    return {name: float(np.mean(values)) for name, values in changes.items()}


@torch.inference_mode()
def table(network: Network, frames: Frames, clusters: Iterable[int]) -> list[dict]:
    made = make_scores(network, frames, clusters)
    metrics = {name: PixelMetrics('streaming') for name in made}
    times: dict[str, list[float]] = {name: [] for name in made}
    alive = [name for name in made if name.endswith('streaming')]
    for stream, lead, image, label in frames.cases:
        for watched in lead:
            output = network(watched)
            for name in alive:
                made[name](output, label.shape, [stream])
        output = network(image)
        for name, score in made.items():
            start = time.perf_counter()
            found = score(output, label.shape, [stream])[0]
            times[name].append(1e3 * (time.perf_counter() - start))
            metrics[name].update(found.numpy(), label)
    flicker = flicker_of(network, made, frames.standing)
    rows = []
    for name in made:
        got = metrics[name].compute()
        rows.append(
            {
                'score': name,
                'ap': round(100 * got['ap'], 2),
                'fpr95': round(100 * got['fpr95'], 2),
                'auroc': round(100 * got['auroc'], 2),
                'ms': round(float(np.median(times[name])), 2),
                'flicker': round(flicker[name], 4),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--drives', type=int, default=8)
    parser.add_argument('--per-drive', type=int, default=6)
    parser.add_argument('--pasted', type=int, default=50, help='frames of CamVid')
    parser.add_argument('--clusters', type=int, nargs='+', default=[12, 24, 48])
    parser.add_argument('--quick', action='store_true', help='2 drives of 3, 6 pasted, K = 24')
    parser.add_argument('--data', type=Path, help='folder of camvid_* and outliers_train')
    parser.add_argument('--output', type=Path)
    given = parser.parse_args()
    if given.quick:
        given.drives, given.per_drive, given.pasted, given.clusters = 2, 3, 6, [24]
    network = Network(given.profile)
    blocks = {'proving ground': rendered(given.drives, given.per_drive)}
    if given.data:
        blocks['pasted on CamVid'] = pasted(given.data, given.pasted)
    rows = []
    for name, frames in blocks.items():
        for row in table(network, frames, given.clusters):
            rows.append({'frames': name, 'count': len(frames.cases), **row})
            print('  '.join(f'{k} {v}' for k, v in rows[-1].items()), flush=True)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        with given.output.open('w', newline='') as file:
            threads = torch.get_num_threads()
            command = f'python {shlex.join(sys.argv)}'
            file.write(f'# {command} (CPU, {threads} threads; ap, fpr95, auroc in percent)\n')
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == '__main__':
    main()
