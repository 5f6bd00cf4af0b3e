# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Measure trained weights, fit their calibration, write the model card and the profile.

    python -m research.ship compact --weights runs/compact/uem/weights.safetensors

writes compact.safetensors and compact.md into the package's folder of weights, and the calibration
into config/profiles/compact.yaml.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.checkpoints import read_checkpoint
from ood_perception.models.compact import Compact
from ood_training.calibrate import fit
from ood_training.checkpointing import write_weights
from ood_training.finishing import write_card
from research import photographs, real_sets, robot7

ROOT = Path(__file__).resolve().parents[1]

PREVALENCE = 0.03
"""Share of unknown pixels that probabilities refer to."""

LICENCES = {
    'compact': (
        'Non-commercial research use only: IDD-Lite states no terms, CamVid is for research, and '
        'some of the COCO photographs have NC or ND licences. `compact_free` is free of them.'
    ),
    'compact_free': (
        'Apache-2.0. Every photograph in it is under CC BY 2.0, CC BY 4.0 or has no known '
        'copyright restrictions, the cut-outs under CC BY or CC BY-SA; attribution below.'
    ),
}

LIMITS = (
    'What is unknown is relative to the training pictures: ground, people, vehicles, roadside '
    'furniture, buildings, vegetation, sky and ceilings are known, furniture that stands in a '
    'room is not.',
    'One campus and one building are all there is of robot-height and indoor photographs; another '
    'site needs its own frames (`ood train uem`) or at least its own calibration.',
    'Objects of fewer than about 50 pixels at the size of the network are not found reliably.',
)


def calibrate(scored: real_sets.Scored) -> tuple[Any, dict[str, float]]:
    """Fit the calibration on the sets that count in the mean."""
    maps: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for name in real_sets.IN_MEAN:
        if name in scored:
            maps += scored[name][0]
            labels += scored[name][1]
    return fit(maps, labels, prevalence=PREVALENCE)


def describe(name: str, data: Path) -> list[dict[str, Any]]:
    """Lines of the card on what was trained on, with the attribution."""
    free = name == 'compact_free'
    shares = robot7.WEIGHTS[name]
    lines: list[dict[str, Any]] = []
    used: list[photographs.Photograph] = []
    for source in (source for source in shares if shares[source]):
        line = {'source': source, 'share of samples': f'{shares[source]:.0%}'}
        if source in robot7.INDEXED:
            found = photographs.read_index(data / source)
            chosen = robot7.training_part(source, found, free)
            used += chosen
            line['frames'] = str(len(chosen))
        lines.append(line)
    count = sum(len(found) for found in robot7.cutouts(data, free))
    lines.append({'cut-outs of unknown things': count})
    named = [p for p in used if p.licence in photographs.FREE_LICENCES]
    return lines + [{'attribution': line} for line in photographs.attribution(named)]


def write_calibration(profile: Path, slope: float, offset: float) -> None:
    """Put a Platt calibration into a profile, its comments kept."""
    text = profile.read_text(encoding='utf-8')
    for key, value in (('slope', slope), ('offset', offset)):
        text, count = re.subn(rf'(?m)^(  {key}: ).*$', rf'\g<1>{value:.4f}', text)
        if count != 1:
            raise SystemExit(f'{profile}: expected one {key}, found {count}')
    profile.write_text(text, encoding='utf-8')


def main() -> None:
    """Write weights, card and calibration."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('name', choices=sorted(robot7.WEIGHTS))
    parser.add_argument('--weights', type=Path, required=True)
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--drives', type=int, default=30)
    parser.add_argument('--most', type=int, default=60, help='frames a set, 0 = all')
    parser.add_argument('--how', default='', help='commands that made the weights, for the card')
    arguments = parser.parse_args()
    state = read_checkpoint(arguments.weights)
    model = Compact(len(robot7.VOCABULARY))
    model.load_state_dict(state, strict=False)
    scores = real_sets.Scores(model.eval())
    drives = list(real_sets.drives(100_000, arguments.drives))
    sets = real_sets.photographed(arguments.data, drives)
    scored = real_sets.score_sets(scores, sets, arguments.most)
    measured = real_sets.numbers(scored)
    calibration, quality = calibrate(scored)
    numbers: dict[str, float] = {'mean AP': real_sets.mean_ap(measured)}
    for name, values in measured.items():
        numbers |= {f'{name} {key}': value for key, value in values.items()}
    numbers |= {f'calibration {key}': value for key, value in quality.items()}
    target = ROOT / 'ood_perception' / 'weights' / f'{arguments.name}.safetensors'
    digest = write_weights(target, state)
    write_calibration(
        ROOT / 'config' / 'profiles' / f'{arguments.name}.yaml',
        calibration.slope,
        calibration.offset,
    )
    write_card(
        target.with_suffix('.md'),
        {
            'name': arguments.name,
            'what': (
                'FPN head and UEM on a frozen EfficientNet-Lite0, seven classes '
                f'({", ".join(robot7.VOCABULARY)}). The sets are those of '
                '`benchmarks/real_quality.py`; none was trained on.'
            ),
            'numbers': numbers,
            'data': describe(arguments.name, arguments.data),
            'licence': LICENCES[arguments.name],
            'limits': list(LIMITS),
            'command': arguments.how or f'python -m research.robot7 {arguments.name}',
            'sha256': digest,
            'record': {'shares': robot7.WEIGHTS[arguments.name]},
        },
    )
    for name, value in numbers.items():
        print(f'{name:28} {value:.4f}')


if __name__ == '__main__':
    main()
