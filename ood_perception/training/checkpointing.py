# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Checkpoints of a training run: atomic, hashed, and the previous one where the last is broken.

A checkpoint `step_000000123.ckpt` is complete only together with `step_000000123.ckpt.sha256`,
which is written last. Both appear by a rename, so a killed process leaves either a whole
checkpoint or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message names the file and what to do."""


def checkpoint_paths(folder: Path) -> list[Path]:
    """Complete checkpoints of a folder, oldest first."""
    found = sorted(folder.glob('step_*.ckpt'))
    return [path for path in found if _hash_path(path).is_file()]


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """
    Write the state of a run after `step` optimiser steps.

    Args:
        folder: of the run.
        step: optimiser steps done.
        state: nested dict of tensors and plain values.
        keep: complete checkpoints that stay; older ones are deleted.

    Returns:
        The path written.

    Raises:
        TrainingError: the file could not be written (disk full, no permission); earlier
            checkpoints are untouched.

    """
    path = folder / f'step_{step:09d}.ckpt'
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    try:
        _write(path, data)
        _write(_hash_path(path), hashlib.sha256(data).hexdigest().encode())
    except OSError as error:
        raise TrainingError(
            f'{path}: the checkpoint could not be written: {error}; free '
            f'{len(data) / 1e6:.0f} MB there, then start the same command again to resume from '
            f'the last complete checkpoint'
        ) from error
    for old in checkpoint_paths(folder)[:-keep]:
        _hash_path(old).unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return path


def load_latest(folder: Path) -> tuple[dict[str, Any], Path] | None:
    """
    Read the newest checkpoint whose hash is right; None where the folder has no checkpoint.

    A broken one is refused with a warning, and the one before it is used.

    Raises:
        TrainingError: there are checkpoints, but every one is broken.

    """
    paths = checkpoint_paths(folder)
    for path in reversed(paths):
        try:
            data = path.read_bytes()
            wanted = _hash_path(path).read_text().strip()
            got = hashlib.sha256(data).hexdigest()
            if got != wanted:
                raise ValueError(f'sha256 is {got[:12]}..., expected {wanted[:12]}...')
            return torch.load(io.BytesIO(data), map_location='cpu', weights_only=True), path
        except (OSError, ValueError, RuntimeError, EOFError) as error:
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


def tensor_bytes(tree: Any) -> int:
    """Bytes of all tensors in a nested dict or list."""
    if isinstance(tree, torch.Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, dict):
        return sum(tensor_bytes(value) for value in tree.values())
    if isinstance(tree, (list, tuple)):
        return sum(tensor_bytes(value) for value in tree)
    return 0


def _hash_path(path: Path) -> Path:
    return path.with_name(path.name + '.sha256')


def _write(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
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
