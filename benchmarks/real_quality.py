# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Measure compact weights on real things in place, pasted ones and rendered drives.

    PYTHONPATH=. python benchmarks/real_quality.py --data ../shared/data
    PYTHONPATH=. python benchmarks/real_quality.py --weights runs/x.safetensors --drives 200

Sets, none of which training saw: the later part of a drive through a building (dhcn_indoor), a
fifth of coco_context, held-out objects pasted on CamVid's drive 0016E5 and on IDD-Lite's
validation frames, rendered drives (seeds from 100,000 on). Their mean AP picks weights.
Not in the mean: large boxy things pasted on both streets. Scores are computed at the size at
which the profile works; every second pixel of every second row counts, void ones do not.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ood_perception.checkpoints import read_checkpoint, resolve
from ood_perception.engines import create_engine
from ood_perception.models.compact import Compact
from ood_perception.profile import Profile
from ood_perception.scores import Calibration
from research.real_sets import (
    IN_MEAN,
    Pair,
    Scores,
    drives,
    mean_ap,
    numbers,
    photographed,
    score_sets,
)

FIELDS = ('set', 'ap', 'fpr95', 'auroc', 'frames')


def load_model(weights: str) -> Any:
    """Build the compact network for weights of any number of classes."""
    state = read_checkpoint(resolve(weights))
    model = Compact(len(state['fpn.head.weight']))
    model.load_state_dict(state, strict=False)
    return model.eval()


def sheet(scores: Scores, calibration: Calibration, pairs: list[Pair], path: Path) -> None:
    """Draw up to 24 frames with their objects outlined beside the probability."""
    tiles = []
    for index in np.unique(np.linspace(0, len(pairs) - 1, 24).astype(int)):
        image, label = pairs[index]
        with torch.inference_mode():
            probability = calibration(torch.from_numpy(scores(image))).numpy()
        left, mask = image.copy(), (label == 1).astype(np.uint8)
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(left, found, -1, (255, 0, 0), 2)
        heat = cv2.applyColorMap((probability * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
        right = (0.65 * heat[..., ::-1] + 0.35 * image).astype(np.uint8)
        tiles.append(
            cv2.resize(np.hstack([left, right]), (640, 240), interpolation=cv2.INTER_AREA)
        )
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 3)
    rows = [np.hstack(tiles[i : i + 3]) for i in range(0, len(tiles), 3)]
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


def main() -> None:
    """Print the table, and write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--profile', default='compact', help='gives weights and calibration')
    parser.add_argument('--weights', default='', help='in place of those of the profile')
    parser.add_argument('--short-side', type=int, default=0, help="0 = the profile's")
    parser.add_argument('--engine', default='eager', help='that runs the network, on the CPU')
    parser.add_argument('--drives', type=int, default=30, help='rendered drives, 0 = none')
    parser.add_argument('--most', type=int, default=0, help='frames a set, 0 = all')
    parser.add_argument('--sheets', type=Path, help='folder for pictures of the probability')
    parser.add_argument('--out', type=Path, help='CSV to write')
    arguments = parser.parse_args()
    profile = Profile.load(arguments.profile)
    side = arguments.short_side or profile.image.short_side
    model = load_model(arguments.weights or profile.segmentor.weights)
    scores = Scores(model, side)
    scores.model = create_engine(arguments.engine, model, torch.device('cpu'), features=False)
    sets = photographed(arguments.data, list(drives(100_000, arguments.drives)))
    rows = []
    measured = {}
    for name, pairs in sets.items():
        measured |= numbers(score_sets(scores, {name: pairs}, arguments.most))
        row = measured[name]
        rows.append({'set': name, **row})
        print(
            f'{name:16} AP {row["ap"]:.4f}  FPR95 {row["fpr95"]:.4f}  AUROC {row["auroc"]:.4f}'
            f'  ({row["frames"]:.0f} frames)',
            flush=True,
        )
        if arguments.sheets:
            arguments.sheets.mkdir(parents=True, exist_ok=True)
            calibration = Calibration.from_config(profile.calibration)
            sheet(scores, calibration, pairs, arguments.sheets / f'{name.replace(" ", "_")}.png')
    counted = [name for name in IN_MEAN if name in measured]
    print(f'mean AP of {", ".join(counted)}: {mean_ap(measured):.4f}')
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == '__main__':
    main()
