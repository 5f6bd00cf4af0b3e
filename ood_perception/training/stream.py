# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The order in which a run sees its samples, a function of the seed alone; and their loading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler


class StreamSampler(Sampler[list[tuple[int, int]]]):
    """
    Batches of (epoch, index) keys from an endless, shuffled stream of epochs.

    Batch b of all processes together holds samples b*n .. (b+1)*n - 1 of the stream, with
    n = batch_size * world; process `rank` takes its part of them. A run may start at any batch, in
    the middle of an epoch.

    Args:
        batch_size: samples a batch and process.
        start: first batch.
        stop: batch after the last, None = endless.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        stop: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.start, self.stop, self.rank, self.world = start, stop, rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batch, epoch, order = self.start, -1, np.empty(0, np.int64)
        while self.stop is None or batch < self.stop:
            first = (batch * self.world + self.rank) * self.batch_size
            keys = []
            for position in range(first, first + self.batch_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.length)
                keys.append((epoch, int(order[position % self.length])))
            yield keys
            batch += 1

    def __len__(self) -> int:
        if self.stop is None:
            raise TypeError('an endless stream has no length')
        return max(self.stop - self.start, 0)


def loader(
    dataset: Dataset,
    sampler: Sampler[list[tuple[int, int]]] | Sequence[list[tuple[int, int]]],
    workers: int,
    **options: Any,
) -> DataLoader:
    """Batches of a stream's keys (epoch, index), in `workers` processes (0 = in this one)."""
    # A forked process waits for ever for OpenCV's threads, which stayed behind: have none.
    cv2.setNumThreads(1)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=workers, **options)
