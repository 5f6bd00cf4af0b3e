# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Safetensors files of our own: small networks shipped with the package, learnt statistics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ood_perception.checkpoints.store import resolve


def load_exactly(module: nn.Module, weights: str) -> None:
    """
    Load a safetensors file into a module, every key and shape equal.

    Args:
        weights: ``package:FILE`` for a file in ``ood_perception/weights``, a path, or a name of
            the weights catalogue.

    Raises:
        OSError: there is no such file.
        ValueError: it is no safetensors file, or keys or shapes differ; the message names them.
    """
    path = resolve(weights)
    try:
        module.load_state_dict(load_file(path), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f'weights {path}: {error}') from error


def read_tensors(reference: str, keys: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """
    Read tensors of learnt statistics and the text stored beside them.

    Args:
        reference: as `weights` of :func:`load_exactly`.
        keys: tensors that the file must hold, all finite.

    Returns:
        Tensors by key, on the host, and the file's metadata.

    Raises:
        OSError: there is no such file.
        ValueError: it is no safetensors file, a tensor is missing, or one holds NaN or infinity.
    """
    path = resolve(reference)
    try:
        with safe_open(str(path), 'pt') as file:
            metadata = dict(file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
    except SafetensorError as error:
        raise ValueError(f'{path} is no safetensors file: {error}') from error
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(f'{path} lacks {", ".join(missing)}')
    if not all(bool(torch.isfinite(state[key]).all()) for key in keys):
        raise ValueError(f'{path} holds NaN or infinity')
    return state, metadata
