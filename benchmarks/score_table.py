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

"""
All scores on the same frames with the compact backbone: AP, FPR95, AUROC, milliseconds.

    python benchmarks/score_table.py --output benchmarks/results/score_table.csv

Frames: rendered drives (seeds from 2000), and, where `--data` is given, held-out objects pasted on
a drive of CamVid that training did not see. Scores with statistics (SML, Mahalanobis, k-NN,
novelty) are fitted on known frames: rendered frames of other seeds, and CamVid's training drives.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ood_perception.engine import create_engine
from ood_perception.engine.transfer import as_frame, normalise
from ood_perception.evaluation.pixel_metrics import PixelMetrics
from ood_perception.models.output import SegmentorOutput
from ood_perception.pipeline import load_segmentor
from ood_perception.profile import Profile
from ood_perception.scores import create_score
from ood_perception.scores.features import fit_sml
from ood_perception.simulation import ProvingGround

Pair = tuple[np.ndarray, np.ndarray]


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


def rendered(seeds: range, per_drive: int) -> list[list[Pair]]:
    """Consecutive frames of each drive at 480x360."""
    return [
        [
            (f.image, f.anomaly)
            for i in range(per_drive)
            for f in [ProvingGround(seed, 480, 360).frame(120 + 3 * i)]
        ]
        for seed in seeds
    ]


def pasted(data: Path, count: int) -> tuple[list[list[Pair]], list[np.ndarray]]:
    """Held-out objects on the drive 0016E5, and known frames of the other drives."""
    from ood_perception.training.compact_data import load_pairs
    from ood_perception.training.outlier_exposure import load_objects, validation_set
    from ood_perception.training.sources import open_frames

    frames = open_frames(f'camvid:{data / "camvid_val"}', 'val')
    train = open_frames(f'camvid:{data / "camvid_train"}', 'train')
    held_out = load_pairs(frames)[:: max(1, 101 // count)]
    pairs = validation_set(held_out, load_objects(data / 'outliers_train', held_out=True))
    known = [image for image, _ in load_pairs(train, leave_out='0016E5')[::8]]
    return [[pair] for pair in pairs], known


def scores(known: Iterator[SegmentorOutput]) -> dict[str, torch.nn.Module]:
    """Every score, the fitted ones fitted."""
    outputs = list(known)
    stages = [1, 2, 3]
    made = {
        name: create_score(name)
        for name in ('llr', 'uem', 'max_logit', 'max_softmax', 'entropy', 'energy')
    }
    made['max_logit_minus_mean'] = create_score('max_logit_minus_mean')
    made['sml'] = create_score('sml', **fit_sml(outputs))
    made['mahalanobis'] = create_score('mahalanobis', stages=stages)
    made['mahalanobis'].fit(outputs)
    for name in ('knn', 'novelty'):
        made[name] = create_score(name, stages=stages)
        made[name].start()
        for output in outputs:
            made[name].learn(output)
        made[name].stop()
    for clusters in (12, 24, 48):
        for streaming in (True, False):
            name = f'clusters {clusters} {"streaming" if streaming else "per image"}'
            made[name] = create_score(
                'clusters', n_clusters=clusters, stages=stages, streaming=streaming
            )
    return made


@torch.inference_mode()
def table(network: Network, drives: list[list[Pair]], known: list[np.ndarray]) -> list[dict]:
    made = scores(network(image) for image in known)
    metrics = {name: PixelMetrics('streaming') for name in made}
    times: dict[str, list[float]] = {name: [] for name in made}
    flicker: dict[str, list[float]] = {name: [] for name in made}
    for number, drive in enumerate(drives):
        before: dict[str, torch.Tensor] = {}
        for image, label in drive:
            output = network(image)
            for name, score in made.items():
                start = time.perf_counter()
                found = score(output, label.shape, [str(number)])[0]
                times[name].append(1e3 * (time.perf_counter() - start))
                metrics[name].update(found.numpy(), label)
                if name in before:
                    change = (found - before[name]).abs().mean() / found.std().clamp_min(1e-6)
                    flicker[name].append(float(change))
                before[name] = found
    rows = []
    for name in made:
        got = metrics[name].compute()
        rows.append(
            {
                'score': name,
                'ap': round(got['ap'], 4),
                'fpr95': round(got['fpr95'], 4),
                'auroc': round(got['auroc'], 4),
                'ms': round(float(np.median(times[name])), 2),
                'flicker': round(float(np.mean(flicker[name] or [0])), 4),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--drives', type=int, default=8)
    parser.add_argument('--per-drive', type=int, default=6)
    parser.add_argument('--pasted', type=int, default=50, help='frames of CamVid')
    parser.add_argument('--data', type=Path, help='folder of camvid_val and outliers_train')
    parser.add_argument('--output', type=Path)
    given = parser.parse_args()
    network = Network(given.profile)
    sets = {}
    others = rendered(range(1900, 1912), 3)
    clean = [image for drive in others for image, label in drive if not (label == 1).any()]
    sets['proving ground'] = (rendered(range(2000, 2000 + given.drives), given.per_drive), clean)
    if given.data:
        sets['pasted on CamVid'] = pasted(given.data, given.pasted)
    rows = []
    for name, (drives, known) in sets.items():
        for row in table(network, drives, known):
            rows.append({'frames': name, **row})
            print('  '.join(f'{k} {v}' for k, v in rows[-1].items()), flush=True)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        with given.output.open('w', newline='') as file:
            file.write('# python benchmarks/score_table.py (flicker: mean change of the score '
                       'between frames 0.1 s apart, over its standard deviation)\n')  # fmt: skip
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == '__main__':
    main()
