# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Samples of the compact recipe: composed from random numbers alone, or fixed pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from ood_training.checkpointing import TrainingError
from ood_training.data import Array, Frames

Pair = tuple[Array, Array]
Compose = Callable[[np.random.Generator, Array, Array], Pair]


class Samples(Dataset):
    """
    Samples composed of frames by outlier exposure, as a function of (seed, epoch, index).

    Args:
        makers: (share, frames to start from, function (rng, image, label) -> (image, label)).
        length: samples an epoch.
        seed: of the random numbers.

    """

    def __init__(
        self, makers: Sequence[tuple[float, Sequence[Pair], Compose]], length: int, seed: int
    ) -> None:
        shares = np.array([share for share, *_ in makers])
        self.makers, self.ends = list(makers), np.cumsum(shares / shares.sum())
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return sample `index` of `epoch`, as `data.TrainingSet` does."""
        cv2.setNumThreads(1)
        rng = np.random.default_rng((self.seed, *key))
        which = min(int(np.searchsorted(self.ends, rng.random(), 'right')), len(self.makers) - 1)
        _, pairs, compose = self.makers[which]
        image, label = pairs[int(rng.integers(len(pairs)))]
        image, label = compose(rng, image, label)
        return as_sample(image, label, f'made sample {key[1]} of epoch {key[0]}')


class Pairs(Dataset):
    """A list of (image, label) as validation samples."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return pair `index`."""
        return as_sample(*self.pairs[key[1]], f'validation sample {key[1]}')


def as_sample(image: Array, label: Array, name: str) -> dict[str, Any]:
    """Turn image uint8 (H, W, 3) and label uint8 (H, W) into a sample."""
    return {
        'image': torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
        'label': torch.from_numpy(label.astype(np.int64)),
        'name': name,
    }


def load_pairs(frames: Frames, leave_out: str = '', only: str = '') -> list[Pair]:
    """Load frames whose file name does not start with `leave_out`, or starts with `only`."""
    pairs = []
    for i, path in enumerate(frames.images):
        if leave_out and path.name.startswith(leave_out):
            continue
        if only and not path.name.startswith(only):
            continue
        pairs.append(frames.load(i))
    if not pairs:
        raise TrainingError(f'{frames.name}: no frame is left (leave out {leave_out!r})')
    return pairs
