# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a run leaves behind: weights, a model card, a profile that the node can be started with."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ood_perception.profile import CalibrationConfig, Profile
from ood_perception.training.checkpointing import TrainingError, write_whole


def write_weights(path: Path, state: Mapping[str, Tensor], half: bool = False) -> str:
    """
    Write tensors as safetensors, in whole or not at all.

    Args:
        path: of the file.
        state: what to write.
        half: store floating-point tensors in half precision.

    Returns:
        The file's sha256.

    """
    from safetensors.torch import save

    tensors = {
        name: (value.half() if half and value.is_floating_point() else value)
        .detach().cpu().contiguous().clone()
        for name, value in state.items()
    }  # fmt: skip
    data = save(tensors)
    try:
        write_whole(path, data)
    except OSError as error:
        raise TrainingError(f'{path}: cannot be written: {error}') from error
    return hashlib.sha256(data).hexdigest()


def write_profile(path: Path, profile: Profile) -> None:
    """Write a profile that `Profile.load` accepts. Raises ProfileError where it would not."""
    tree = profile.to_dict()
    Profile.from_dict(tree)
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding='utf-8')


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """
    Write a model card in Markdown.

    Args:
        path: of the file.
        card: 'name', 'what' (one paragraph), 'command', 'data' (list of mappings), 'numbers'
            (name -> value), 'licence', 'record' (everything that steered the run), 'sha256',
            'limits' (list).

    """
    lines = [f'# {card["name"]}', '', str(card['what']), '']
    lines += ['## Numbers', '', '| number | value |', '|---|---|']
    lines += [f'| {name} | {_number(value)} |' for name, value in card['numbers'].items()]
    lines += ['', '## Data', '']
    for item in card['data']:
        lines.append('- ' + '; '.join(f'{key}: {value}' for key, value in item.items()))
    lines += ['', '## Licence', '', str(card['licence']), '']
    lines += ['## Limits', ''] + [f'- {limit}' for limit in card['limits']]
    lines += ['', '## How it was made', '', '```', str(card['command']), '```', '']
    lines += [
        f'- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}',
        f'- torch {torch.__version__}, Python {platform.python_version()}, {_device()}',
        f'- sha256 of the weights: `{card["sha256"]}`',
        '',
        'Everything that steered the run:',
        '',
        '```yaml',
        yaml.safe_dump(_plain(card['record']), sort_keys=False).rstrip(),
        '```',
        '',
    ]
    path.write_text('\n'.join(lines), encoding='utf-8')


def make_profile(
    base: Mapping[str, Any],
    name: str,
    model: str,
    options: Mapping[str, Any],
    weights: Path,
    score: str,
    calibration: CalibrationConfig,
    classes: list[str],
    licence: str,
) -> Profile:
    """
    Put together the profile of a trained model.

    Args:
        base: keys of the profile that the preset gives (image size, prompts, mask model; options
            of its score count where it is the score).
        name: of the profile.
        model: entry of `models.SEGMENTORS`.
        options: of the model.
        weights: file of the weights, written absolutely.
        score: entry of `scores.SCORES`.
        calibration: fitted.
        classes: names, in the order of the logits.
        licence: of the weights.

    """
    own = base.get('score', {})
    tree = {
        **base,
        'name': name,
        'description': f'{model} trained with ood train',
        'segmentor': {
            'name': model,
            'weights': str(weights.resolve()),
            'options': dict(options),
        },
        'score': own if own.get('name') == score else {'name': score},
        'calibration': dataclasses.asdict(calibration),
        'classes': classes,
        'licence': licence,
    }
    return Profile.from_dict(_plain(tree))


def licence_text(noncommercial: list[str]) -> str:
    """One line on what the weights may be used for, from the data they were trained on."""
    if noncommercial:
        return f'non-commercial research use only, because of {", ".join(noncommercial)}'
    return 'as the training data allows'


def _number(value: Any) -> str:
    return f'{value:.4f}' if isinstance(value, float) else str(value)


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'CPU with {torch.get_num_threads()} threads'


def _plain(tree: Any) -> Any:
    """Only what YAML's safe dump knows."""
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_plain(value) for value in tree]
    if isinstance(tree, Path):
        return str(tree)
    return tree
