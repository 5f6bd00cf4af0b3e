# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Unknown objects to paste: a folder of RGBA cut-outs; alpha > 127 is the object."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.data import read_rgba

Array = np.ndarray


class Objects(Protocol):
    """A source of unknown objects."""

    name: str

    def __len__(self) -> int: ...

    def load(self, index: int) -> Array:
        """Return object `index` as uint8 (h, w, 4) RGBA."""
        ...


class CutOuts:
    """RGBA files (*.png, *.webp) of a folder or its sub-folder `rgba`; none is a TrainingError."""

    def __init__(self, root: Path) -> None:
        self.name = str(root)
        inner = root / 'rgba'
        where = inner if inner.is_dir() else root
        self.paths = sorted(where.glob('*.png')) + sorted(where.glob('*.webp'))
        if not self.paths:
            text = 'no RGBA cut-outs (*.png, *.webp); without unknown objects a UEM learns nothing'
            raise TrainingError(f'{where}: {text}')

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> Array:
        """Return object `index` as uint8 (h, w, 4) RGBA."""
        return read_rgba(self.paths[index])

    def check(self) -> None:
        """Read every file. Raises TrainingError naming one that is broken or empty."""
        for index, path in enumerate(self.paths):
            if not (self.load(index)[..., 3] > 127).any():
                raise TrainingError(f'{path}: alpha is 0 everywhere')


def open_objects(text: str) -> Objects:
    """Open `rgba:folder` or just a folder. Raises TrainingError: none, or nothing in it."""
    kind, colon, rest = text.partition(':')
    if colon and kind != 'rgba':
        raise TrainingError(f'{text}: expected rgba:folder')
    root = Path(rest if colon else text).expanduser()
    if not root.is_dir():
        raise TrainingError(f'{root}: no such folder')
    return CutOuts(root)
