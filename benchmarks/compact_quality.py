# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Measure the compact network: likelihood ratio beside max-logit, UEM alone and entropy.

    python benchmarks/compact_quality.py --data ../shared/data

Two sets, neither of which training saw: objects of held-out pictures pasted on the held-out CamVid
drive 0016E5 at 480x360, and drives of the proving ground (seeds from 100,000 on; 640x480, computed
at the profile's size). Scores are at label resolution and all pixels but void count. Heatmaps can
be looked at with --sheets: outlined objects on the left, probability on the right.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import checkout  # noqa: F401
import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ood_evaluation.pixel_metrics import PixelMetrics
from ood_perception.building import load_segmentor
from ood_perception.frames.transfer import network_size
from ood_perception.models.output import InputSpec
from ood_perception.profile import Profile
from ood_perception.scores import Calibration, create_score
from ood_training.sources import open_frames
from research.outlier_exposure import load_objects, validation_set

SCORES = ('llr', 'max_logit', 'uem', 'entropy')
DRIVE = '0016E5'
FIELDS = ('set', 'score', 'ap', 'fpr95', 'auroc', 'frames', 'unknown_share')

BINS = np.linspace(-40, 40, 8001)
"""Edges of the likelihood ratio's histograms, in nats."""

Sample = tuple[np.ndarray, np.ndarray]


def street_frames(data: Path, every: int = 4) -> list[Sample]:
    """Frames of the held-out drive: image and label with 255 void."""
    train = open_frames(f'camvid:{data / "camvid_train"}', 'train')
    val = open_frames(f'camvid:{data / "camvid_val"}', 'val')
    held = [i for i, path in enumerate(train.images) if path.name.startswith(DRIVE)]
    return [train.load(i) for i in held[::every]] + [val.load(i) for i in range(0, len(val), 2)]


def pasted(data: Path) -> Iterator[Sample]:
    """Held-out objects on frames of the held-out drive."""
    objects = load_objects(data / 'outliers_train', held_out=True)
    yield from validation_set(street_frames(data), objects)


def proving_ground(
    first: int, drives: int, camera: tuple[int, int] = (640, 480), frames: int = 3
) -> Iterator[Sample]:
    """Frames of drives of the proving ground, evenly spread over 20 seconds each."""
    from ood_simulation.proving_ground import ProvingGround

    for seed in range(first, first + drives):
        drive = ProvingGround(seed, *camera)
        for index in np.linspace(30, 590, frames).astype(int):
            frame = drive.frame(int(index))
            yield frame.image, frame.anomaly


class Scorer:
    """All scores of a profile's segmentor, at the size of the frame."""

    def __init__(self, profile: Profile) -> None:
        self.model: Any = load_segmentor(profile).eval()
        self.profile, self.spec = profile, cast(InputSpec, self.model.spec)
        own = {profile.score.name: profile.score.options}
        self.scores = {name: create_score(name, **own.get(name, {})) for name in SCORES}
        self.calibration = Calibration.from_config(profile.calibration)

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Image uint8 (H, W, 3) -> score name -> float32 (H, W)."""
        config = self.profile.image
        height, width = image.shape[:2]
        size = network_size(
            height, width, config.short_side, config.max_long_side, self.spec.multiple_of
        )
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        x = F.interpolate(x, size, mode='bilinear', antialias=True) / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (self.spec.mean, self.spec.std))
        with torch.inference_mode():
            output = self.model((x - mean) / std)
            return {
                name: score(output, image.shape[:2], ['benchmark'])[0].numpy()
                for name, score in self.scores.items()
            }

    def probability(self, llr: np.ndarray) -> np.ndarray:
        """Score float32 (H, W) -> probability 0..1."""
        with torch.inference_mode():
            return self.calibration(torch.from_numpy(llr)).numpy()


def outlined(image: np.ndarray, label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Frame with its objects outlined, beside the heatmap."""
    left = image.copy()
    found, _ = cv2.findContours(
        (label == 1).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(left, found, -1, (255, 0, 0), 1)
    heat = cv2.applyColorMap((probability * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    right = (0.65 * heat + 0.35 * image).astype(np.uint8)
    return cv2.resize(np.hstack([left, right]), (640, 240), interpolation=cv2.INTER_AREA)


def without_each(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """
    Average precision (frames,) of all frames but one, for each.

    Args:
        known: histograms of the score (frames, bins) of known pixels.
        unknown: the same of unknown ones.

    """
    found = []
    for frame in range(len(known)):
        fewer = [(h.sum(0) - h[frame])[::-1].astype(np.float64) for h in (known, unknown)]
        false, true = (np.cumsum(h) for h in fewer)
        precision = true / np.maximum(true + false, 1)
        found.append(float((precision * fewer[1]).sum() / max(true[-1], 1)))
    return np.array(found)


def tell_worst(metric: PixelMetrics, histograms: list[np.ndarray], most: int) -> None:
    """Print the frames without which the average precision differs most."""
    known, unknown = (np.array(h) for h in zip(*histograms, strict=True))
    change = without_each(known, unknown) - metric.compute()['ap']
    for frame in np.argsort(-np.abs(change))[:most]:
        share = unknown[frame].sum() / max(unknown.sum(), 1)
        print(f'  without frame {frame}, {share:.1%} of the unknown pixels: {change[frame]:+.4f}')


def measure(
    scorer: Scorer, samples: Iterator[Sample], sheet: Path | None, worst: int = 0
) -> list[dict[str, Any]]:
    """Metrics of every score over the samples; a sheet of heatmaps where asked for."""
    metrics = {name: PixelMetrics() for name in SCORES}
    histograms: list[np.ndarray] = []
    tiles: list[np.ndarray] = []
    unknown = total = 0
    for number, (image, label) in enumerate(samples):
        scores = scorer(image)
        for name, score in scores.items():
            metrics[name].update(score, label)
        if worst:
            llr = np.clip(scores['llr'], BINS[0], BINS[-1])
            histograms.append(np.array([np.histogram(llr[label == v], BINS)[0] for v in (0, 1)]))
        unknown, total = unknown + int((label == 1).sum()), total + int((label != 255).sum())
        if sheet is not None and number % 4 == 0 and len(tiles) < 30:
            tiles.append(outlined(image, label, scorer.probability(scores['llr'])))
    if sheet is not None:
        rows = [np.hstack(tiles[i : i + 3]) for i in range(0, len(tiles) - 2, 3)]
        cv2.imwrite(str(sheet), np.vstack(rows)[..., ::-1])
    found = []
    for name, metric in metrics.items():
        values = metric.compute()
        row = {key: values[key] for key in ('ap', 'fpr95', 'auroc', 'frames')}
        found.append({'score': name, **row, 'unknown_share': unknown / max(total, 1)})
    if worst:
        tell_worst(metrics['llr'], histograms, worst)
    return found


def main() -> None:
    """Print the table and write it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--weights', default='', help='in place of those of the profile')
    parser.add_argument('--short-side', type=int, help="in place of the profile's")
    parser.add_argument('--first-seed', type=int, default=100_000)
    parser.add_argument('--drives', type=int, default=30)
    parser.add_argument('--camera', default='640x480', help='of the proving ground')
    parser.add_argument('--sheets', type=Path, help='folder for contact sheets of heatmaps')
    parser.add_argument('--worst', type=int, default=0, help='frames that AP hangs on to tell of')
    parser.add_argument('--out', type=Path, help='CSV to write')
    arguments = parser.parse_args()
    profile = Profile.load(arguments.profile)
    if arguments.weights:
        segmentor = dataclasses.replace(profile.segmentor, weights=arguments.weights)
        profile = dataclasses.replace(profile, segmentor=segmentor)
    if arguments.short_side:
        size = {'short_side': arguments.short_side, 'max_long_side': 2 * arguments.short_side}
        profile = dataclasses.replace(profile, image=dataclasses.replace(profile.image, **size))
    width, height = (int(side) for side in arguments.camera.split('x'))
    scorer = Scorer(profile)
    sets = {
        'pasted on CamVid': pasted(arguments.data),
        'proving ground': proving_ground(arguments.first_seed, arguments.drives, (width, height)),
    }
    if arguments.sheets:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        plain = ((image, label * 0) for image, label in street_frames(arguments.data, 5))
        measure_plain(scorer, plain, arguments.sheets / 'plain.png')
    rows = []
    for name, samples in sets.items():
        sheet = arguments.sheets / f'{name.replace(" ", "_")}.png' if arguments.sheets else None
        for row in measure(scorer, samples, sheet, arguments.worst):
            rows.append({'set': name, **row})
            print(
                f'{name:18} {row["score"]:10} AP {row["ap"]:.4f}  FPR95 {row["fpr95"]:.4f}  '
                f'AUROC {row["auroc"]:.4f}  ({row["frames"]} frames)',
                flush=True,
            )
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)


def measure_plain(scorer: Scorer, samples: Iterator[Sample], sheet: Path) -> None:
    """Print how much of streets without unknown objects fires, and draw the heatmaps."""
    tiles, fired = [], []
    for image, label in samples:
        probability = scorer.probability(scorer(image)['llr'])
        fired.append(float((probability > 0.5).mean()))
        tiles.append(outlined(image, label, probability))
    rows = [np.hstack(tiles[i : i + 3]) for i in range(0, min(len(tiles), 30) - 2, 3)]
    cv2.imwrite(str(sheet), np.vstack(rows)[..., ::-1])
    print(f'plain streets: {100 * np.mean(fired):.3f} % of pixels above probability 0.5')


if __name__ == '__main__':
    main()
