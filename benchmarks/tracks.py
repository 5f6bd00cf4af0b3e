# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Count how often the id of a true object changes on drives of the proving ground.

    python benchmarks/tracks.py --profile compact --drives 6 --output tracks.csv
    python benchmarks/tracks.py --profile compact --unknowns 2 --output tracks.csv

Three sources of instances: the true masks; the true masks with edges moved by a pixel, one in five
missing in each frame and false alarms; and the profile's whole pipeline. An object is matched by
the instance with the largest overlap of at least --least; instances that match none, far objects
below --area too, are alarms; false ids are those that touched an unknown thing in no
frame. Switches are told for 100 frames in which an object is in view, and
for 100 in which it is matched too. Seeds from 9500 on, which training never saw.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import cv2
import numpy as np
import torch
from table import append

from ood_evaluation.time_metrics import TimeMetrics
from ood_perception.masks import Tracker, fuse
from ood_simulation.proving_ground import ProvingGround
from research.mask_validation import mask_overlaps, match

FIELDS = (
    'source', 'unknowns', 'drives', 'frames', 'objects', 'found', 'object_frames',
    'matched_frames', 'alarms', 'false_ids', 'false_ids_per_minute', 'switches',
    'per_100_object_frames', 'per_100_matched_frames', 'command',
)  # fmt: skip


def spoilt(masks: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Masks with moved edges, a fifth of them missing, and now and then a false alarm."""
    out = []
    for mask in masks:
        if rng.random() < 0.2:
            continue
        change = cv2.dilate if rng.random() < 0.5 else cv2.erode
        moved = change(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        out.append(moved if moved.sum() >= 16 else mask)
    if rng.random() < 0.3 and masks:
        alarm = np.zeros_like(masks[0])
        y, x = (int(rng.integers(0, side - 12)) for side in alarm.shape)
        alarm[y : y + 12, x : x + 12] = True
        out.append(alarm)
    return out


class Source:
    """Instances of the frames of drives, by the profile or from the truth, and their tally."""

    def __init__(self, name: str, pipeline: Any) -> None:
        self.name, self.pipeline = name, pipeline
        self.tracker, self.rng = Tracker(), np.random.default_rng(0)
        self.metrics, self.visible, self.matched, self.alarms = TimeMetrics(), 0, 0, 0
        self.seen: set[tuple[str, int]] = set()
        self.real: set[tuple[str, int]] = set()
        self.seconds = 0.0

    def start(self) -> None:
        """Begin a drive."""
        self.tracker = Tracker()
        if self.pipeline is not None:
            self.pipeline.reset()

    def labels(self, image: np.ndarray, masks: list[np.ndarray], stamp_ns: int) -> np.ndarray:
        """Labels (H, W) with ids that last."""
        if self.pipeline is not None:
            (result,) = self.pipeline(image, ['drive'], wants=('instances',), stamps=[stamp_ns])
            return result.instances
        shown = spoilt(masks, self.rng) if self.name == 'spoilt truth' else masks
        size = image.shape[:2]
        logits = torch.from_numpy(np.array(shown, np.float32).reshape(-1, *size)) - 0.5
        scores, valid = torch.full((len(shown),), 0.9), torch.ones(len(shown), dtype=torch.bool)
        # Duplicates of the truth are objects of their own.
        now = fuse(logits, scores, valid, torch.zeros(size), min_area=1, duplicate=1.0)
        return self.tracker.update(now, torch.from_numpy(image).permute(2, 0, 1)).labels.numpy()

    def add(self, frame: Any, drive: str, least: float, area: int) -> None:
        """Count one frame of the proving ground."""
        ids = np.unique(frame.instances[frame.instances > 0])
        masks = [frame.instances == i for i in ids]
        large = [i for i, mask in enumerate(masks) if mask.sum() >= area]
        labels = self.labels(frame.image, masks, int(frame.stamp * 1e9))
        found = np.unique(labels[labels > 0])
        overlap = mask_overlaps([masks[i] for i in large], [labels == i for i in found])
        pairs = match(overlap, least)
        self.visible, self.matched = self.visible + len(large), self.matched + len(pairs)
        self.alarms += len(found) - len(pairs)
        self.seen |= {(drive, int(n)) for n in found}
        touching = np.unique(labels[(frame.anomaly != 0) & (labels > 0)])
        self.real |= {(drive, int(n)) for n in touching}
        self.metrics.update(
            int(frame.stamp * 1e9),
            truths=[int(ids[i]) for i in large],
            pairs=[(int(found[n]), int(ids[large[t]])) for t, n in pairs],
            stream=drive,
        )

    def numbers(self) -> dict[str, Any]:
        """Columns of the table."""
        numbers, switches = self.metrics.compute(), self.metrics.switches
        return {
            'source': self.name,
            'objects': int(numbers['objects']),
            'found': int(numbers['objects'] - numbers['never_found']),
            'object_frames': self.visible,
            'matched_frames': self.matched,
            'alarms': self.alarms,
            'false_ids': len(self.seen - self.real),
            'false_ids_per_minute': 60 * len(self.seen - self.real) / self.seconds,
            'switches': switches,
            'per_100_object_frames': 100 * switches / max(self.visible, 1),
            'per_100_matched_frames': 100 * switches / max(self.matched, 1),
        }


def measure(sources: list[Source], options: argparse.Namespace) -> None:
    """Drive all drives, each frame rendered once for all sources."""
    for seed in range(options.seed, options.seed + options.drives):
        drive = ProvingGround(seed, 480, 360, rate=options.rate, unknowns=options.unknowns)
        for source in sources:
            source.start()
        for index in range(options.frames):
            frame = drive.frame(index)
            for source in sources:
                source.seconds += 1 / options.rate
                source.add(frame, str(seed), options.least, options.area)


def main() -> None:
    """Parse, measure, print, append to the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--profile', default='compact', help="several by commas, '' = from the truth only"
    )
    parser.add_argument('--drives', type=int, default=4)
    parser.add_argument('--frames', type=int, default=100, help='of each drive')
    parser.add_argument('--rate', type=float, default=15.0, help='frames per second')
    parser.add_argument('--seed', type=int, default=9500)
    parser.add_argument(
        '--unknowns', type=float, help="per 20 m of road; default the drive's own 0.25 to 0.9"
    )
    parser.add_argument('--area', type=int, default=100, help='pixels from which objects count')
    parser.add_argument('--least', type=float, default=0.3, help='IoU from which objects match')
    parser.add_argument('--output', type=Path, help='CSV to append to')
    options = parser.parse_args()
    torch.set_num_threads(1)
    sources = [Source('truth', None), Source('spoilt truth', None)]
    for profile in filter(None, options.profile.split(',')):
        from ood_perception.pipeline import Pipeline

        sources.append(Source(profile, Pipeline.from_profile(profile, device='cpu')))
    measure(sources, options)
    about = {
        'unknowns': 'own' if options.unknowns is None else options.unknowns,
        'drives': options.drives,
        'frames': options.drives * options.frames,
        'command': shlex.join(['python', *sys.argv]),
    }
    rows = [{**source.numbers(), **about} for source in sources]
    for row in rows:
        print(', '.join(f'{k} {v}' for k, v in row.items() if k != 'command'), flush=True)
    if options.output:
        append(options.output, FIELDS, rows)


if __name__ == '__main__':
    main()
