# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The end of a training run: calibration, model card and a profile ready to use."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from ood_perception.checkpoints.store import sha256_of
from ood_perception.profile import CalibrationConfig, Profile
from ood_training.calibrate import fit
from ood_training.run import Job, build, class_names, make_validation

LIMITS = [
    'Numbers come from the validation set named here, not from a benchmark.',
    'What is unknown is relative to the training frames: another site, camera or season needs its '
    'own frames or calibration.',
]
"""What every model card says of its numbers."""


def finish(
    job: Job,
    weights: Path,
    numbers: dict[str, Any],
    scores: Sequence[np.ndarray] = (),
    labels: Sequence[np.ndarray] = (),
    score: str = 'llr',
) -> Path:
    """
    Calibrate, and write the model card and the profile beside the weights.

    Args:
        scores: of the validation set, for the calibration; none = as the profile's default.
        score: entry of `scores.SCORES` that the profile names.

    Returns:
        Path of the profile.
    """
    calibration, preset = CalibrationConfig(), job.preset
    if len(scores):
        calibration, quality = fit(scores, labels)
        numbers = {**numbers, **{f'calibration {k}': v for k, v in quality.items()}}
    limited = ', '.join(f.name for f in job.frames if f.noncommercial)
    licence = 'as the training data allows'
    if limited:
        licence = f'non-commercial research use only, because of {limited}'
    own = preset.profile.get('score', {})
    tree = {
        **preset.profile,
        'name': weights.stem,
        'description': f'{preset.model} trained with ood train',
        'segmentor': {
            'name': preset.model,
            'weights': str(weights.resolve()),
            'options': dict(preset.options),
        },
        'score': own if own.get('name') == score else {'name': score},
        'calibration': dataclasses.asdict(calibration),
        'classes': class_names(job),
        'licence': licence,
    }
    path = weights.with_suffix('.yaml')
    Profile.from_dict(tree).save(path)
    kinds = [kind for kind in ('segmentor', 'uem') if hasattr(preset, kind)]
    write_card(
        weights.with_suffix('.md'),
        {
            'name': weights.stem,
            'what': f'{preset.model}, trained with preset {job.name} ({preset.source}).',
            'numbers': numbers,
            'data': job.sources,
            'licence': licence,
            'limits': LIMITS,
            'command': job.command,
            'sha256': sha256_of(weights),
            'record': {kind: dataclasses.asdict(getattr(preset, kind)) for kind in kinds},
        },
    )
    return path


def finish_uem(job: Job, weights: Path, numbers: dict[str, Any]) -> Path:
    """Load the trained UEM, calibrate it on the validation samples, write card and profile."""
    validation = make_validation(job)
    if validation is None:
        return finish(job, weights, numbers)
    parts = build(dataclasses.replace(job, weights=str(weights)))
    with torch.inference_mode():
        scores, labels = validation.scores(parts)
    return finish(job, weights, numbers, scores, labels)


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """
    Write a model card in Markdown.

    Args:
        path: of the file.
        card: 'name', 'what' (one paragraph), 'command', 'data' (list of mappings), 'numbers'
            (name -> value), 'licence', 'record' (everything that steered the run), 'sha256',
            'limits' (list).
    """
    device = f'CPU with {torch.get_num_threads()} threads'
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    # YAML's safe dump knows neither tuples nor paths.
    record = json.loads(json.dumps(card['record'], default=str))
    lines = [f'# {card["name"]}', '', str(card['what']), '']
    lines += ['## Numbers', '', '| number | value |', '|---|---|']
    for name, value in card['numbers'].items():
        lines.append(f'| {name} | {f"{value:.4f}" if isinstance(value, float) else value} |')
    lines += ['', '## Data', '']
    lines += ['- ' + '; '.join(f'{key}: {v}' for key, v in item.items()) for item in card['data']]
    lines += ['', '## Licence', '', str(card['licence']), '']
    lines += ['## Limits', ''] + [f'- {limit}' for limit in card['limits']]
    lines += ['', '## How it was made', '', '```', str(card['command']), '```', '']
    lines += [
        f'- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}',
        f'- torch {torch.__version__}, Python {platform.python_version()}, {device}',
        f'- sha256 of the weights: `{card["sha256"]}`',
        '',
        'Everything that steered the run:',
        '',
        '```yaml',
        yaml.safe_dump(record, sort_keys=False).rstrip(),
        '```',
        '',
    ]
    path.write_text('\n'.join(lines), encoding='utf-8')
