# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Measure what the memory of the score does on rendered drives, for several lengths and frame rates.

    PYTHONPATH=. python benchmarks/score_memory.py

AP and FPR95 over all pixels; alarms: share of the known pixels above the threshold; hits: share of
the unknown pixels above it; flicker: share of all pixels that change sides between two frames,
moved by the flow. The drives are none that any weights were trained or chosen on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_curve
from table import append

from ood_perception.frames.flow import flow_between, grid
from ood_perception.pipeline import Pipeline
from ood_perception.scores.memory import ScoreMemory
from ood_simulation import ProvingGround

OUT = Path(__file__).parent / 'results' / 'score_memory.csv'
SECONDS = (0.0, 0.06, 0.12, 0.2, 0.3)
THRESHOLD = 0.5
"""Probability above which a pixel is an alarm."""
FIRST = 60
"""Frame of the drive, 30 a second, that is the first one."""
LEFT_OUT = 4
"""Frames at the beginning, while the memory fills."""


class Tally:
    """Pixels of one length of the memory at one rate."""

    def __init__(self, seconds: float) -> None:
        self.memory = ScoreMemory(seconds) if seconds else None
        self.scores: list[np.ndarray] = []
        self.truth: list[np.ndarray] = []
        self.changed: list[float] = []
        self.above: np.ndarray | None = None

    def start(self) -> None:
        """Begin a drive."""
        self.above = None
        if self.memory is not None:
            self.memory.reset()

    def add(self, frame: Any, score: torch.Tensor, way: Any, threshold: float) -> None:
        """Count a frame; `way` leads from it to the one before."""
        if self.memory is not None:
            image = torch.from_numpy(frame.image).permute(2, 0, 1)[None]
            stamp = round(frame.stamp * 1e9) + 1
            score = self.memory(score[None], image, ['drive'], [stamp])[0]
        above = (score > threshold).numpy().astype(np.uint8)
        if way is not None and self.above is not None:
            before = cv2.remap(self.above, *way, cv2.INTER_NEAREST)
            self.changed.append(float((before != above).mean()))
        self.above = above
        if way is not None:
            counts = frame.anomaly[::2, ::2] != 255
            self.scores.append(score.numpy()[::2, ::2][counts])
            self.truth.append(frame.anomaly[::2, ::2][counts] == 1)

    def numbers(self, threshold: float) -> dict[str, float]:
        """Figures, shares 0..1."""
        score, truth = np.concatenate(self.scores), np.concatenate(self.truth)
        false, true, _ = roc_curve(truth, score)
        return {
            'ap': float(average_precision_score(truth, score)),
            'fpr95': float(false[np.searchsorted(true, 0.95)]),
            'alarms': float((score[~truth] > threshold).mean()),
            'hits': float((score[truth] > threshold).mean()),
            'flicker': float(np.mean(self.changed)),
        }


def way_back(now: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y, float32 (H, W), of the place in `before` of every pixel of `now`."""
    small = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[::2, ::2] for image in (now, before)]
    flow = cv2.resize(flow_between(*small)[0], (now.shape[1], now.shape[0])) * 2
    x, y = grid(*now.shape[:2])
    return x + flow[..., 0], y + flow[..., 1]


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--profile', default='compact')
    parser.add_argument('--drives', type=int, default=8)
    parser.add_argument('--frames', type=int, default=30)
    parser.add_argument('--first', type=int, default=500_400, help='seed of the first drive')
    parser.add_argument('--out', type=Path, default=OUT)
    arguments = parser.parse_args()
    pipeline = Pipeline.from_profile(arguments.profile)
    calibration = pipeline.calibration
    threshold = (np.log(THRESHOLD / (1 - THRESHOLD)) - calibration.offset) / calibration.slope
    rows = []
    for step in (1, 3, 8):
        tallies = {seconds: Tally(seconds) for seconds in SECONDS}
        for seed in range(arguments.first, arguments.first + arguments.drives):
            drive, before = ProvingGround(seed), None
            for tally in tallies.values():
                tally.start()
            for index in range(FIRST, FIRST + step * arguments.frames, step):
                frame = drive.frame(index)
                (result,) = pipeline(frame.image, wants=('score',))
                score = torch.from_numpy(result.score)
                late = index >= FIRST + step * LEFT_OUT
                way = way_back(frame.image, before) if late and before is not None else None
                for tally in tallies.values():
                    tally.add(frame, score, way, threshold)
                before = frame.image
        for seconds, tally in tallies.items():
            row = {'hz': round(30 / step, 2), 'seconds': seconds, **tally.numbers(threshold)}
            rows.append(row)
            print('  '.join(f'{key} {value:.4g}' for key, value in row.items()), flush=True)
    append(arguments.out, list(rows[0]), rows)


if __name__ == '__main__':
    main()
