# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Train the compact network's UEM with each form of outlier exposure and compare what it learns.

    python benchmarks/exposures.py --steps 600 --output exposures.csv

`ours` (research.outlier_exposure), `uem_mix` (UEM's Anomaly Mix, probability 1.0 so that every
sample holds an object, as ours does) and `rpl` (S2M's). The same frozen head, random UEM, frames,
cut-outs, batch, steps and seed for all; no rendered frames for any. Measured on held-out objects
pasted on the held-out drive by our own means, which favours ours, and on drives of the proving
ground, which no form has seen. One form takes about the time of stage 2 of
`python -m research.robot7` a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import numpy as np
import torch
from table import append

from ood_perception.checkpoints import read_checkpoint, resolve
from ood_perception.labels import Label, Truth
from ood_training import run
from ood_training.checkpointing import write_weights
from ood_training.presets import find_preset, override
from ood_training.recipes import make_recipe
from ood_training.sources import open_frames
from ood_training.uem import Validation, pixel_numbers
from research.compact_data import Compose, Pairs, Samples, load_pairs
from research.outlier_exposure import Exposure, load_objects, validation_set
from research.presets import PRESETS
from research.recipes import RECIPES
from research.rendered import render
from research.robot7 import VAL_DRIVES
from research.stages import run_stage

LABELS = 'camvid_robot7'
FIELDS = ('exposure', 'set', 'ap', 'fpr95', 'auroc', 'steps', 'batch', 'seed', 'command')


def forms(pairs: list[Any], objects: list[Any], size: tuple[int, int]) -> dict[str, Compose]:
    """Name -> function (rng, image, label) -> (image, label)."""
    whole = {'crop': list(size), 'pad': list(size)}
    # The recipes only choose from their objects, so a plain list will do.
    source: Any = objects
    return {
        'ours': Exposure(pairs, objects).outlier,
        'uem_mix': make_recipe('uem_mix', source, RECIPES, probability=1.0, **whole),
        'rpl': make_recipe('rpl', source, RECIPES, crop=min(size)),
    }


def as_trained(truth: np.ndarray) -> np.ndarray:
    """Training label of the single class 0, from a truth of 0 known, 1 unknown, 255 ignored."""
    table = np.full(256, Label.VOID, np.uint8)
    table[[Truth.KNOWN, Truth.UNKNOWN]] = 0, Label.UNKNOWN
    return table[truth]


def main() -> None:
    """Parse, train each form, print, append to the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--weights', default='package:compact.safetensors', help='of the head')
    parser.add_argument('--forms', default='ours,uem_mix,rpl')
    parser.add_argument('--steps', type=int, default=600)
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--seed', type=int, default=2)
    parser.add_argument('--drives', type=int, default=len(VAL_DRIVES), help='validated on')
    parser.add_argument('--frames', type=int, default=0, help='at most, of each kind; 0 = all')
    parser.add_argument('--folder', type=Path, help='of the runs; default: a temporary one')
    parser.add_argument('--output', type=Path, help='CSV to append to')
    options = parser.parse_args()
    limit = options.frames or None
    train = open_frames(f'camvid:{options.data / "camvid_train"}', 'train', LABELS)
    held_in = load_pairs(train, leave_out='0016E5')[:limit]
    held_out = load_pairs(open_frames(f'camvid:{options.data / "camvid_val"}', 'val', LABELS))[
        :limit
    ]
    objects = load_objects(options.data / 'outliers_train', held_out=False)
    strange = load_objects(options.data / 'outliers_train', held_out=True)
    pasted = validation_set(held_out[::2] or held_out, strange)
    sets = {'pasted': Pairs([(image, as_trained(label)) for image, label in pasted])}
    preset = find_preset('compact', PRESETS)
    changes = [f'steps={options.steps}', f'batch_size={options.batch}', f'seed={options.seed}']
    changes += [f'warmup_steps={max(1, options.steps // 10)}', 'validate_every=0', 'workers=0']
    preset = dataclasses.replace(preset, uem=override(preset.uem, changes))
    composes = forms(held_in, objects, held_in[0][1].shape)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        # Without its UEM, which has learnt from what is compared here.
        state = read_checkpoint(resolve(options.weights))
        head = folder / 'head.safetensors'
        head.parent.mkdir(parents=True, exist_ok=True)
        write_weights(head, {k: v for k, v in state.items() if not k.startswith('uem.')})
        if options.drives:
            seeds = range(VAL_DRIVES.start, VAL_DRIVES.start + options.drives)
            rendered = render(folder / 'proving_ground', seeds, 3, workers=1)
            sets['proving ground'] = Pairs(load_pairs(rendered))
        for name in options.forms.split(','):
            job = run.Job(preset, name, folder / name, [train], weights=str(head))
            samples = Samples([(1.0, held_in, composes[name])], 4000, options.seed)
            job.command = shlex.join(['python', *sys.argv])
            weights, _ = run_stage(job, 'uem', samples)
            parts = run.build(dataclasses.replace(job, weights=str(weights)))
            for where, pairs in sets.items():
                with torch.inference_mode():
                    numbers = pixel_numbers(*Validation(pairs).scores(parts))
                text = ', '.join(f'{key} {value:.4f}' for key, value in numbers.items())
                print(f'{name} on {where}: {text}', flush=True)
                about = {'steps': options.steps, 'batch': options.batch, 'seed': options.seed}
                rows.append(
                    {'exposure': name, 'set': where, **numbers, **about, 'command': job.command}
                )
    if options.output:
        append(options.output, FIELDS, rows)


if __name__ == '__main__':
    main()
