# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What each source of `compact` is worth: short trainings without one of them each, one row a run.

    python -m research.source_worth --data ../shared/data --out runs/worth \
        --output benchmarks/results/source_worth.csv

The frozen backbone runs once over samples composed of every source, with unknown things of that
source and of the folders of cut-outs only; the heads then train on what it said. All runs of a
seed start from the same weights and see the same samples in the same order, but for those of the
source left out. Start the command again, and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ood_training import run
from ood_training.data import Frames
from ood_training.label_maps import load_label_map
from ood_training.parts import Parts, normalise
from ood_training.presets import override
from research import real_sets
from research.cache import FeatureCache
from research.compact_data import Samples, load_pairs
from research.fast_features import fast_features
from research.presets import PRESETS, PaperPreset
from research.rendered import render
from research.robot7 import NAMES, VAL_DRIVES, VOCABULARY, WEIGHTS, cutouts, open_source
from research.scenes import Scenes, Things
from research.stages import make_task

log = logging.getLogger(__name__)

SHARES = WEIGHTS['compact']
ALL = 'nothing'
"""Name of the run that leaves nothing out."""

RUNS = (f'{ALL}:1', f'{ALL}:2', *(f'{name}:1' for name in NAMES))
FIELDS = (
    'left_out', 'seed', *real_sets.IN_MEAN, 'mean', 'segmentor_steps', 'uem_steps', 'batch',
    'samples', 'frames', 'command',
)  # fmt: skip


class Mixture(Dataset):
    """
    Samples of several pools in the shares of their sources, as a function of (seed, key).

    Args:
        pools: source -> its samples, indexed by (epoch, index).
        length: samples an epoch.
        seed: of the draws.

    """

    def __init__(self, pools: Mapping[str, Any], length: int, seed: int) -> None:
        self.pools, self.length, self.seed = dict(pools), length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return the sample of a key (epoch, index)."""
        name, index = self.draw(key)
        return self.pools[name][0, index]

    def draw(self, key: tuple[int, int]) -> tuple[str, int]:
        """Source and index of a key: without a source only the draws that fell on it change."""
        rng = np.random.default_rng((self.seed, *key))
        noise = dict(zip(NAMES, rng.gumbel(size=len(NAMES)), strict=True))
        places = dict(zip(NAMES, rng.random(len(NAMES)), strict=True))
        # the largest of log share + Gumbel noise comes up as often as the share says
        name = max(self.pools, key=lambda n: np.log(SHARES[n]) + noise[n])
        return name, int(places[name] * len(self.pools[name]))


def make_pools(
    data: Path, drawn: Path, folder: Path, samples: int, parts: Parts
) -> dict[str, FeatureCache]:
    """Compose `samples` samples, of every source its share, and run the backbone over them."""
    pasted = [cutout for found in cutouts(data, free=False) for cutout in found]
    pools: dict[str, FeatureCache] = {}
    for name, share in SHARES.items():
        source, _ = open_source(name, share, data, drawn)
        scenes = Scenes(source, Things.collect(pasted, [source]))
        count = max(round(share * samples), 60)
        made = Samples([(1.0, source.pairs, scenes)], count, seed=5)
        if not pools:
            assert parts.backbone is not None
            example = normalise(made[0, 0]['image'][None], parts.spec)
            parts.features = fast_features(parts.backbone, example)
        log.info('%s: %d samples of %d frames', name, count, len(source.pairs))
        pools[name] = FeatureCache(folder / name, made, parts, count, identity=name)
    return pools


def short(segmentor_steps: int, uem_steps: int, batch: int, seed: int) -> PaperPreset:
    """Return the preset `compact` with so few steps."""
    preset = dataclasses.replace(PRESETS['compact'], options={'classes': len(VOCABULARY)})
    changes = [f'batch_size={batch}', f'seed={seed}', 'workers=0', 'validate_every=0']

    def shorten(stage: Any, steps: int) -> Any:
        rise = max(1, steps // 10)
        return override(stage, [*changes, f'steps={steps}', f'warmup_steps={rise}'])

    return dataclasses.replace(
        preset,
        segmentor=shorten(preset.segmentor, segmentor_steps),
        uem=shorten(preset.uem, uem_steps),
    )


def train(preset: PaperPreset, folder: Path, pools: Mapping[str, Any]) -> Any:
    """Train class head and UEM on pools; returns the model in evaluation mode."""
    frames = [Frames([], [], load_label_map('robot7'), 'robot7')]
    weights = ''
    for kind in ('segmentor', 'uem'):
        job = run.Job(preset, 'compact', folder, frames, weights=weights)
        stage = run.begin(job, kind)
        parts = run.build(job)
        length = stage.trainer.steps * stage.trainer.batch_size
        samples = Mixture(pools, length, stage.trainer.seed)
        path, _ = run.fit(job, kind, parts, make_task(kind, parts, stage), samples)
        weights = str(path)
    return parts.model.eval()


def finished(path: Path) -> set[str]:
    """Runs `left_out:seed` that have a row in a table."""
    if not path.is_file():
        return set()
    with path.open(newline='', encoding='utf-8') as file:
        return {f'{row["left_out"]}:{row["seed"]}' for row in csv.DictReader(file)}


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a table, with a heading if it is new."""
    fresh = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, FIELDS)
        if fresh:
            writer.writeheader()
        writer.writerow({k: f'{v:.4f}' if isinstance(v, float) else v for k, v in row.items()})


def main() -> None:
    """Make the pools, then train and score every run that has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--out', type=Path, required=True, help='folder of the pools and runs')
    parser.add_argument('--drawn', type=Path, help='rendered frames and rooms; default OUT/drawn')
    parser.add_argument('--output', type=Path, required=True, help='CSV to append to')
    parser.add_argument('--runs', nargs='+', default=RUNS, metavar='SOURCE:SEED',
                        help=f'source left out ({ALL}: none) and seed')  # fmt: skip
    parser.add_argument('--samples', type=int, default=2000, help='composed, of all sources')
    parser.add_argument('--segmentor-steps', type=int, default=100)
    parser.add_argument('--uem-steps', type=int, default=300)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--most', type=int, default=20, help='frames scored of each set')
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    for each in options.runs:
        source, _, seed = each.partition(':')
        if source not in (ALL, *NAMES) or not seed.isdecimal():
            parser.error(f'--runs {each}: expected SOURCE:SEED with one of {(ALL, *NAMES)}')
    drawn = options.drawn or options.out / 'drawn'
    steps = options.segmentor_steps, options.uem_steps
    parts = run.build(run.Job(short(*steps, options.batch, 1), 'compact', options.out))
    pools = make_pools(options.data, drawn, options.out / 'pools', options.samples, parts)
    val = load_pairs(render(drawn / 'val', VAL_DRIVES, 3, workers=2))
    sets = real_sets.photographed(options.data, real_sets.as_unknown(val))
    sets = {name: sets[name] for name in real_sets.IN_MEAN if name in sets}
    for name in options.runs:
        if name in finished(options.output):
            continue
        left_out, _, seed = name.partition(':')
        kept = {k: pool for k, pool in pools.items() if k != left_out}
        preset = short(*steps, options.batch, int(seed))
        model = train(preset, options.out / name.replace(':', '_'), kept)
        measured = real_sets.numbers(
            real_sets.score_sets(real_sets.Scores(model), sets, options.most)
        )
        row = {k: values['ap'] for k, values in measured.items()}
        row['mean'] = real_sets.mean_ap(measured)
        log.info('without %s: %s', name, {k: round(v, 3) for k, v in row.items()})
        about = dict(zip(('segmentor_steps', 'uem_steps'), steps, strict=True))
        about |= {'batch': options.batch, 'samples': options.samples, 'frames': options.most}
        command = shlex.join(['python', '-m', 'research.source_worth', *sys.argv[1:]])
        append(
            options.output,
            {'left_out': left_out, 'seed': seed, **row, **about, 'command': command},
        )


if __name__ == '__main__':
    main()
