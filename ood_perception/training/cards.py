# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a run leaves behind: weights and a model card."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ood_perception.training.checkpointing import TrainingError, write_whole


def write_weights(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors, in whole or not at all, and return the file's sha256."""
    from safetensors.torch import save

    data = save({k: v.detach().cpu().contiguous().clone() for k, v in state.items()})
    try:
        write_whole(path, data)
    except OSError as error:
        raise TrainingError(f'{path}: cannot be written: {error}') from error
    return hashlib.sha256(data).hexdigest()


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """
    Write a model card in Markdown.

    Args:
        path: of the file.
        card: 'name', 'what' (one paragraph), 'command', 'data' (list of mappings), 'numbers'
            (name -> value), 'licence', 'record' (everything that steered the run), 'sha256',
            'limits' (list).
    """
    # YAML's safe dump knows neither tuples nor paths.
    record = json.loads(json.dumps(card['record'], default=str))
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
        yaml.safe_dump(record, sort_keys=False).rstrip(),
        '```',
        '',
    ]
    path.write_text('\n'.join(lines), encoding='utf-8')


def _number(value: Any) -> str:
    return f'{value:.4f}' if isinstance(value, float) else str(value)


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'CPU with {torch.get_num_threads()} threads'
