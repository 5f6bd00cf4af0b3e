# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a run writes, whole or not at all; where its last checkpoint is broken, the one before."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message names the file and what to do."""


def checkpoint_paths(folder: Path) -> list[Path]:
    """Checkpoints of a folder, oldest first."""
    return sorted(folder.glob('step_*.ckpt'))


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """
    Write the state of a run (tensors and plain values) after `step` optimiser steps.

    The newest `keep` checkpoints of the folder stay.

    Raises:
        TrainingError: the file could not be written (disk full, no permission); earlier
            checkpoints are untouched.
    """
    path = folder / f'step_{step:09d}.ckpt'
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise TrainingError(
            f'{path}: the checkpoint could not be written: {error}; free '
            f'{buffer.tell() / 1e6:.0f} MB there, then start the same command again to resume '
            f'from the last checkpoint'
        ) from error
    for old in checkpoint_paths(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load_latest(folder: Path) -> tuple[dict[str, Any], Path] | None:
    """
    Read the newest checkpoint that is whole, warning of broken ones; None where there is none.

    Raises:
        TrainingError: there are checkpoints, but every one is broken.
    """
    paths = checkpoint_paths(folder)
    for path in reversed(paths):
        try:
            with zipfile.ZipFile(path) as archive:
                if wrong := archive.testzip():
                    raise ValueError(f'the checksum of {wrong} is wrong')
            return torch.load(path, map_location='cpu', weights_only=True), path
        except Exception as error:  # unpickling raises whatever the bytes lead to
            log.warning('%s: refused: %s; trying the checkpoint before it', path, error)
    if paths:
        raise TrainingError(
            f'{folder}: all {len(paths)} checkpoints are broken; delete them to start anew'
        )
    return None


def check_space(folder: Path, size: int) -> None:
    """Refuse to start where `folder` has no room for `size` bytes. Raises TrainingError."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise TrainingError(
            f'{folder}: {free / 1e6:.0f} MB free, but this run needs about {size / 1e6:.0f} MB'
        )


def write_whole(path: Path, data: bytes) -> None:
    """
    Write a whole file or nothing. Raises OSError.

    Lightning's saving goes through the folder for temporary files, which may be another disk.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with temporary.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_weights(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors, in whole or not at all, and return the file's sha256."""
    data = save({k: v.detach().cpu().contiguous().clone() for k, v in state.items()})
    try:
        write_whole(path, data)
    except OSError as error:
        raise TrainingError(f'{path}: cannot be written: {error}') from error
    return hashlib.sha256(data).hexdigest()
