# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Write a checkpoint as stripped safetensors: what inference needs, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.checkpoints.loading import LoadReport, match, parts
from ood_perception.checkpoints.origins import detect_origin
from ood_perception.checkpoints.reading import read_checkpoint
from ood_perception.checkpoints.store import CheckpointError

FAMILIES: dict[str, str | tuple[str, ...]] = {
    'mmseg': 'internimage_',
    'dinov2': 'dinov2_',
    'dinov2_hf': 'dinov2_',
    'uem': 'uem_',
    'detectron2': 's2m_',
    'sam': 'sam_vit_',
    'ours': ('compact', 'dinov2_', 'uem_'),
}
"""Origin -> how the names of its models begin."""

SAM = ('sam_vit_b', 'sam_vit_l', 'sam_vit_h')  # networks of the package segment_anything


def build_network(name: str) -> nn.Module:
    """
    Build a network by name without memory, to compare a checkpoint with.

    Args:
        name: for `models.create_model`, or sam_vit_b, sam_vit_l, sam_vit_h.

    Raises:
        ValueError: no such network.
        ImportError: Segment Anything is not installed.
    """
    from ood_perception.models import create_model

    with torch.device('meta'):
        if name in SAM:
            from segment_anything import sam_model_registry

            return sam_model_registry[name.removeprefix('sam_')]()
        # Its pretrained backbone would be read only to be lost: there is no memory to hold it.
        return create_model(name, **({'pretrained': False} if name == 'compact' else {}))


def identify(state: Mapping[str, Tensor], name: str = 'mapping') -> str:
    """
    Find the model that a checkpoint belongs to, by building the candidates without memory.

    Returns:
        a name for `models.create_model`.

    Raises:
        CheckpointError: it fits none.
    """
    from ood_perception.models import MODELS

    found = dict.fromkeys(detect_origin(part) for _, part in parts(state))
    origins = [origin for origin in found if origin] or ['ours']
    for origin in origins:
        for candidate in (*MODELS, *SAM):
            if not candidate.startswith(FAMILIES[origin]):
                continue
            try:
                match(build_network(candidate), state)
            except CheckpointError:
                continue
            return candidate
    said = (
        f'{", ".join(origins)} keys' if any(found) else f'unknown keys, {", ".join([*state][:3])}'
    )
    raise CheckpointError(
        f'{name}: cannot tell which model it is for ({said}, and it fits none); name it, '
        '--model NAME, to see what differs'
    )


def convert_file(
    source: str | Path, target: str | Path, model: str = '', half: bool = False
) -> LoadReport:
    """
    Convert a checkpoint to safetensors in our names.

    Memory queues, optimizer state, auxiliary heads and hyper-parameters stay behind.

    Args:
        target: .safetensors to write; appears whole or not at all.
        model: name for `models.create_model`, '' to find it.
        half: store floating point tensors in float16.

    Raises:
        CheckpointError: unreadable, of no known model, not finite in half precision, or no space.
    """
    from safetensors.torch import save_file

    target = Path(target).expanduser()
    if target.suffix != '.safetensors':
        raise CheckpointError(f'{target}: expected a name that ends in .safetensors')
    state = read_checkpoint(source)
    model = model or identify(state, str(source))
    network = build_network(model)
    converted, report = match(network, state, name=str(source))
    skipped = tuple(getattr(network, 'optional_keys', ()))
    tensors = {
        name: _stored(name, value, half)
        for name, value in converted.tensors.items()
        if not (skipped and name.startswith(skipped))
    }
    metadata: dict[str, Any] = {
        'format': 'ood_perception',
        'model': model,
        'origin': report.origin,
        'source': Path(source).name,
    }
    part = target.with_name(target.name + '.part')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata)
        part.replace(target)
    except Exception as error:  # safetensors reports a full disk with an error of its own
        part.unlink(missing_ok=True)
        raise CheckpointError(f'{target}: cannot be written: {error}') from error
    return report


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    value = value.contiguous().clone()
    if half and value.is_floating_point():
        value = value.half()
        if not value.isfinite().all():
            raise CheckpointError(f'{name}: does not fit into half precision')
    return value
