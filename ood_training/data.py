# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Training data: pairs of images and labels, objects to paste, samples of them and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ood_evaluation import label_files
from ood_perception.bags import files
from ood_perception.frames.picture import BadImage
from ood_perception.labels import Label
from ood_training import cut_outs
from ood_training.checkpointing import TrainingError
from ood_training.label_maps import LabelMap

Array = np.ndarray
Recipe = Callable[[np.random.Generator, Array, Array], tuple[Array, Array]]
"""(random numbers, image uint8 (H, W, 3) RGB, label uint8 (H, W)) -> the same, augmented."""


def evenly(length: int, limit: int) -> list[int]:
    """Up to `limit` of so many indices, evenly chosen. Raises TrainingError: there are none."""
    if not length:
        raise TrainingError('there is no sample')
    return np.unique(np.linspace(0, length - 1, min(limit, length)).astype(int)).tolist()


@dataclass(frozen=True, eq=False)
class Frames:
    """Images with their labels."""

    images: Sequence[Path]  # paths, sorted
    # path of each image's label; None where every pixel is known (class 0)
    labels: Sequence[Path | None]
    label_map: LabelMap  # label values -> class ids
    name: str = ''  # where they come from, for people
    noncommercial: bool = False  # True where the data's licence forbids commercial use

    def __len__(self) -> int:
        return len(self.images)

    def load(self, index: int) -> tuple[Array, Array]:
        """
        Read one pair: image uint8 (H, W, 3) RGB, label uint8 (H, W) of ids, 254 and 255.

        Raises:
            TrainingError: a file that cannot be read, sizes that differ, or a label value
                outside the map; the message names the file.
        """
        image, turned = _read(files.read_picture, self.images[index])
        path = self.labels[index]
        if path is None:
            return image, np.zeros(image.shape[:2], np.uint8)
        label = label_files.in_step(read_label(path), image.shape, turned)
        if label.shape != image.shape[:2]:
            raise TrainingError(
                f'{path}: label is {label.shape[1]}x{label.shape[0]} pixels, its image '
                f'{self.images[index]} is {image.shape[1]}x{image.shape[0]}'
            )
        return image, self.label_map.apply(label, path)

    def check(self, limit: int = 1000, threads: int = 2) -> None:
        """
        Read up to `limit` pairs, evenly chosen, so that errors show before training starts.

        Raises:
            TrainingError: there is no image, or the first of :meth:`load`'s errors.
        """
        if not len(self):
            raise TrainingError(f'{self.name}: no images')
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda i: self.load(i) and None, evenly(len(self), limit)):
                pass

    def has_unknown(self) -> bool:
        """Whether any label holds an unknown pixel."""
        return bool((self.label_map.table == Label.UNKNOWN).any()) and any(
            (self.load(i)[1] == Label.UNKNOWN).any() for i, p in enumerate(self.labels) if p
        )


def read_image(path: Path) -> Array:
    """Read an image upright as uint8 (H, W, 3) RGB. Raises TrainingError naming the file."""
    return _read(files.read_picture, path).rgb


def read_rgba(path: Path) -> Array:
    """Read a cut-out object as uint8 (H, W, 4) RGBA. Raises TrainingError naming the file."""
    return _read(cut_outs.read_rgba, path)


def read_label(path: Path) -> Array:
    """Read label values as uint8 or uint16 (H, W); of palette files the indices."""
    return _read(label_files.read_label, path)


def _read(how: Callable[[Path], Any], path: Path) -> Any:
    try:
        return how(path)
    except BadImage as error:
        raise TrainingError(str(error)) from error
    except OSError as error:
        raise TrainingError(f'{files.shown(path)}: {error.strerror or error}') from error


class Objects(Protocol):
    """A source of unknown objects to paste; alpha > 127 is the object."""

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


class TrainingSet(Dataset):
    """
    Samples of frames under a recipe, functions of (seed, epoch, index) alone.

    Args:
        frames: images with labels; several are mixed in proportion to their sizes.
        recipe: augmentation, outlier exposure included.
        seed: of the recipe's random numbers.
    """

    def __init__(
        self, frames: Frames | Sequence[Frames], recipe: Recipe | None = None, seed: int = 0
    ) -> None:
        self.frames = [frames] if isinstance(frames, Frames) else list(frames)
        self.recipe, self.seed = recipe, seed
        self._ends = np.cumsum([len(f) for f in self.frames])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """
        Return the sample of (epoch, index).

        Returns:
            'image': uint8 (3, H, W) RGB; 'label': int64 (H, W) class ids, 254 unknown, 255 void;
            'name': path of the image.
        """
        epoch, index = key
        which = int(np.searchsorted(self._ends, index, side='right'))
        frames = self.frames[which]
        local = index - int(self._ends[which] - len(frames))
        image, label = frames.load(local)
        if self.recipe is not None:
            rng = np.random.default_rng((self.seed, epoch, index))
            image, label = self.recipe(rng, image, label)
        return {
            'image': torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            'label': torch.from_numpy(label.astype(np.int64)),
            'name': str(frames.images[local]),
        }


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
