# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Measure what teaching a site is worth, and whether a budget of alarms is kept.

    python benchmarks/site_quality.py --data ../shared/data --output site_quality.csv
    python benchmarks/site_quality.py --sites rendered --drives 1 --most 10
    python benchmarks/site_quality.py --sites budget --drives 20 --output site_quality.csv

Sites: a building (dhcn_indoor: the first fifth of the drive is learnt, of which only the pixels
that are known; the later part is scored), a street with pasted objects (CamVid: learnt on another
drive), and rendered drives (learnt without objects, the same street scored with them). Scores: the
LLR alone, novelty alone, the same where tokens also know their place in the picture, novelty over
one reference picture, both together (compact_site), and on rendered drives these with a depth
camera (compact_site_depth); all at the size of compact_site.

The budget: thresholds come from drives without objects; alarms are counted on others. The
share of these within the budget, and the recall (blocks with an object in view that have an alarm
on one), stand beside the recall of the lowest threshold that keeps nine drives in ten within it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import numpy as np
import torch
from table import append

from ood_evaluation.pixel_metrics import PixelMetrics
from ood_perception import Pipeline
from ood_perception.alarm_budget import BLOCK, Peaks, threshold_for
from ood_perception.building import load_segmentor
from ood_perception.profile import Profile
from ood_perception.scores import create_score
from ood_simulation.proving_ground import ProvingGround
from ood_training.sources import open_frames
from research.cutouts import load_objects
from research.outlier_exposure import validation_set
from research.photographs import load, read_index
from research.real_sets import DRIVE, Pair, Scores, as_unknown, camvid_frames

CAMVID_RATE = 30
"""Frames a second that the numbers in CamVid's file names count."""

POSITION = 0.2
"""Option `position` of the novelty that knows its place."""
RANGE = 10.0
"""Metres that the depth camera of rendered drives sees."""

FIELDS = (
    'site', 'score', 'ap', 'fpr95', 'learnt', 'scored', 'seconds', 'kilobytes', 'ms', 'promised',
    'kept', 'recall', 'best_recall', 'command',
)  # fmt: skip


class Sharing(Scores):
    """Several scores of one pass through the network."""

    def __init__(self, depth: bool) -> None:
        site, novelty = Profile.load('compact_site'), Profile.load('compact_novelty')
        super().__init__(load_segmentor(site).eval(), site.image.short_side)
        self.llr = self.score
        placed = {**novelty.score.options, 'position': POSITION}
        self.taught: dict[str, Any] = {
            'site': create_score('site', **site.score.options),
            'novelty': create_score('novelty', **novelty.score.options),
            'novelty with position': create_score('novelty', **placed),
            'one reference': create_score('novelty', **novelty.score.options),
        }
        if depth:
            deep = Profile.load('compact_site_depth').score.options
            placed = {name: deep[name] for name in ('position', 'depth')}
            self.taught['site with depth'] = create_score('site', **deep)
            self.taught['novelty with depth'] = create_score(
                'novelty', **novelty.score.options, **placed
            )
        self.score = self._all
        self.depth: torch.Tensor | None = None
        self.known: torch.Tensor | None = None
        self.ms: dict[str, list[float]] = {name: [] for name in (*self.taught, 'llr')}

    def see(self, depth: Any = None) -> None:
        """Take the depth of the next image, float32 (H, W) metres."""
        if depth is not None:
            seen = np.where(depth < RANGE, depth, np.float32(np.nan))
            self.depth = torch.from_numpy(seen)[None, ::4, ::4]

    def _all(self, output: Any, size: tuple[int, int]) -> torch.Tensor:
        maps, output.depth = [], self.depth
        for name, score in {'llr': self.llr, **self.taught}.items():
            started = time.process_time()
            if self.known is None:
                maps.append(score(output, size)[0])
            elif name != 'llr' and not (name == 'one reference' and score.size):
                score.learn(output, self.llr(output, size), self.known)
            self.ms[name].append(1e3 * (time.process_time() - started))
        return torch.stack(maps)[None] if maps else torch.zeros(1)


def sites(data: Path, drives: int) -> dict[str, Callable[[], tuple[list[Any], list[Any]]]]:
    """
    Name -> what is learnt and what is scored: images, truth, and metres where they are known.

    Truth: 0 known, 1 unknown, 255 ignored.
    """

    def indoor() -> tuple[list[Pair], list[Pair]]:
        index = read_index(data / 'dhcn_indoor')
        train = [p for p in index if p.split == 'train']
        val = [p for p in index if p.split == 'val']
        return as_unknown(load(train[: len(train) // 5])), as_unknown(load(val))

    def street() -> tuple[list[Pair], list[Pair]]:
        frames = open_frames(f'camvid:{data / "camvid_train"}', 'train')
        other = [i for i, path in enumerate(frames.images) if path.name.startswith('0006R0')]
        objects = load_objects(data / 'outliers_train', held_out=True)
        learnt = as_unknown([frames.load(i) for i in other])
        return learnt, validation_set(camvid_frames(data), objects)

    def rendered(seed: int) -> tuple[list[Any], list[Any]]:
        learnt, scored = (
            [(f.image, f.anomaly, f.depth) for f in map(ground.frame, range(60))]
            for ground in (ProvingGround(seed, rate=1, unknowns=0), ProvingGround(seed, rate=1))
        )
        return learnt, scored

    seeds = range(200_000, 200_000 + drives)
    return {'dhcn_indoor': indoor, 'pasted CamVid': street} | {
        f'rendered {seed}': partial(rendered, seed) for seed in seeds
    }


def measure(learnt: list[Any], scored: list[Any], most: int) -> list[dict[str, Any]]:
    """Rows of one site."""
    scores, started = Sharing(len(learnt[0]) > 2), time.process_time()
    some = [pairs[:: -(-len(pairs) // most) if most else 1] for pairs in (learnt, scored)]
    for image, truth, *depth in some[0]:
        scores.known = torch.from_numpy(truth == 0)[None]
        scores.see(*depth)
        scores(image)
    scores.known = None
    seconds = time.process_time() - started
    teaching = {name: sum(ms) / 1e3 for name, ms in scores.ms.items()}
    seconds -= sum(teaching.values())
    scores.ms = {name: [] for name in scores.ms}
    metrics: dict[str, Any] = {name: PixelMetrics() for name in scores.ms}
    for image, truth, *depth in some[1]:
        scores.see(*depth)
        maps = scores(image)
        for name, found in zip(('llr', *scores.taught), maps, strict=True):
            metrics[name].update(found[1::2, 1::2], truth[1::2, 1::2])
    rows = []
    for name, metric in metrics.items():
        values, kilobytes = metric.compute(), 0.0
        if name != 'llr':
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / 'memory'
                scores.taught[name].save(str(file))
                kilobytes = file.stat().st_size / 1e3
        rows.append(
            {
                'score': name,
                'ap': round(float(values['ap']), 4),
                'fpr95': round(float(values['fpr95']), 4),
                'learnt': len(some[0]),
                'scored': len(some[1]),
                'seconds': round(seconds + teaching[name], 2) if name != 'llr' else 0,
                'kilobytes': round(kilobytes, 1),
                'ms': round(float(np.median(scores.ms[name])), 2),
            }
        )
    return rows


def peaks(pipeline: Pipeline, ground: ProvingGround, seconds: int) -> tuple[Peaks, Peaks, Peaks]:
    """Peaks of all that is found on a drive, of what is found on objects, and of the truth."""
    found, hits, there = Peaks(), Peaks(), Peaks()
    pipeline.reset()
    for i in range(round(seconds * ground.rate)):
        frame, now = ground.frame(i), i / ground.rate
        stamps = [round(frame.stamp * 1e9)]
        (result,) = pipeline([frame.image], ['drive'], wants=('instances',), stamps=stamps)
        share = [np.mean(frame.anomaly[result.instances == n] == 1) for n in result.ids]
        hit = np.asarray(share) > 0.5
        found.look('', now, result.ids, result.confidences)
        hits.look('', now, result.ids[hit], result.confidences[hit])
        large = int((frame.anomaly == 1).sum() > 200)
        there.look('', now, [1] * large, [1.0] * large)
    return found, hits, there


def budget(
    learnt: int, drives: int, seconds: int, per_hour: float, profile: str
) -> dict[str, Any]:
    """Row of a budget of alarms."""
    pipeline = Pipeline.from_profile(profile, 'cpu')

    def run(first: int, unknowns: float | None, count: int) -> list[tuple[list[float], ...]]:
        grounds = (ProvingGround(first + i, 480, 360, 2, unknowns) for i in range(count))
        return [tuple(p.finished() for p in peaks(pipeline, g, seconds)) for g in grounds]

    known = [peak for drive, *_ in run(300_000, 0, learnt) for peak in drive]
    verdict = threshold_for(known, per_hour)
    held, objects = [drive for drive, *_ in run(310_000, 0, drives)], run(310_000, None, drives)
    hits = [h for _, found, there in objects for h, t in zip(found, there, strict=True) if t]
    allowed = per_hour * seconds / 3600

    def kept(threshold: float) -> float:
        alarms = [sum(peak >= threshold for peak in drive) for drive in held]
        return float(np.mean([count <= allowed for count in alarms]))

    def recall(threshold: float) -> float:
        return float(np.mean([peak >= threshold for peak in hits]))

    steps = np.linspace(0, 1.001, 2003)
    best = next(float(step) for step in steps if kept(float(step)) >= 0.9)
    return {
        'score': profile,
        'learnt': len(known),
        'scored': drives,
        'promised': per_hour if verdict.promised else 0,
        'kept': round(kept(verdict.threshold), 3),
        'recall': round(recall(verdict.threshold), 4),
        'best_recall': round(recall(best), 4),
    }


def street_budget(data: Path, per_hour: float, profile: str) -> dict[str, Any]:
    """
    Row of a budget on CamVid: from the other drives, kept on the one that is held out.

    The budget is the one asked for or, as these are minutes, the tightest that they can promise.
    """
    pipeline = Pipeline.from_profile(profile, 'cpu')
    frames = open_frames(f'camvid:{data / "camvid_train"}', 'train')
    found: dict[str, Peaks] = {}
    for i, path in enumerate(frames.images):
        drive, number = path.stem.split('_')[:2]
        now = int(number.lstrip('f')) / CAMVID_RATE
        image, stamps = frames.load(i)[0], [round(now * 1e9)]
        (result,) = pipeline([image], [drive], wants=('instances',), stamps=stamps)
        found.setdefault(drive, Peaks()).look('', now, result.ids, result.confidences)
    held = found.pop(DRIVE)
    known = [peak for drive in found.values() for peak in drive.finished()]
    per_hour = max(per_hour, 3600 / BLOCK / (len(known) + 1))
    verdict = threshold_for(known, per_hour)
    alarms = sum(peak >= verdict.threshold for peak in held.finished())
    return {
        'score': profile,
        'learnt': len(known),
        'scored': 1,
        'promised': round(per_hour, 1) if verdict.promised else 0,
        'kept': float(alarms <= per_hour * held.watched / 3600),
    }


def main() -> None:
    """Print the rows and append them to the table."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--sites', default='', help='part of the names; budget = the budget alone')
    parser.add_argument('--drives', type=int, default=4, help='rendered drives')
    parser.add_argument('--most', type=int, default=0, help='frames a part of a site, 0 = all')
    parser.add_argument('--learn', type=int, default=40, help='drives that a budget is told from')
    parser.add_argument('--seconds', type=int, default=60, help='of a drive of the budget')
    parser.add_argument('--alarms-per-hour', type=float, default=6.0)
    parser.add_argument('--profile', default='compact', help='of the budget')
    parser.add_argument('--output', type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if arguments.sites == 'budget':
        asked = arguments.alarms_per_hour, arguments.profile
        row = budget(arguments.learn, arguments.drives, arguments.seconds, *asked)
        rows.append({'site': 'budget', **row})
        if (arguments.data / 'camvid_train').is_dir():
            rows.append({'site': 'budget CamVid', **street_budget(arguments.data, *asked)})
    else:
        for name, frames in sites(arguments.data, arguments.drives).items():
            if arguments.sites in name:
                rows += [{'site': name, **row} for row in measure(*frames(), arguments.most)]
    command = shlex.join(['python', *sys.argv])
    for row in rows:
        print({key: row[key] for key in FIELDS if key in row}, flush=True)
    if arguments.output:
        append(arguments.output, FIELDS, [row | {'command': command} for row in rows])


if __name__ == '__main__':
    main()
