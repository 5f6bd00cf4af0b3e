# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Cache of frozen features: what the backbone says of a number of samples, memory-mapped on disk.

Backbone and augmentation run once; then heads train at the speed of the heads, on a laptop. The
price is that the samples repeat every epoch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ood_training.checkpointing import TrainingError, check_space
from ood_training.data import StreamSampler, loader
from ood_training.parts import Parts, normalise

log = logging.getLogger(__name__)


class FeatureCache(Dataset):
    """
    Features and labels of the first `count` samples of a data set's stream.

    The cache is built at once, or completed where an earlier build was interrupted. One made of
    other data, another recipe or another backbone is refused.

    Args:
        folder: of the cache, its own.
        dataset: indexed by (epoch, index); all samples have one size.
        parts: whose `features` are kept, in half precision.
        count: samples; more than the data set's length runs through several epochs of it.
        seed: of the stream.
        identity: what the data set is, in words (data, recipe, seed); part of the check.
        batch_size: images a forward pass.
        workers: processes that load samples.

    Raises:
        TrainingError: no room on the disk, samples of several sizes, or a foreign cache.

    """

    def __init__(
        self,
        folder: Path,
        dataset: Dataset,
        parts: Parts,
        count: int,
        seed: int = 0,
        identity: str = '',
        batch_size: int = 8,
        workers: int = 0,
    ) -> None:
        if count < 1:
            raise TrainingError(f'cache: expected 1 sample or more, got {count}')
        self.folder, self.count, self.parts = Path(folder), count, parts
        first = dataset[next(iter(StreamSampler(len(dataset), 1, seed)))[0]]  # type: ignore[arg-type]
        maps = self._maps(first['image'][None])
        shapes = [tuple(m.shape[1:]) for m in maps]
        self.meta = {
            'count': count,
            'shapes': [list(shape) for shape in shapes],
            'label': list(first['label'].shape),
            'identity': identity,
            'backbone': backbone_hash(parts),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check_meta()
        size = count * (sum(2 * int(np.prod(s)) for s in shapes) + first['label'].numel())
        if not (self.folder / 'labels.npy').is_file():
            check_space(self.folder, size + 10_000_000)
        self._files = [self._open(f'features_{i}', np.float16, s) for i, s in enumerate(shapes)]
        self._labels = self._open('labels', np.uint8, tuple(first['label'].shape))
        self._build(dataset, seed, batch_size, workers)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """
        Return cached sample `index`; the epoch changes nothing.

        Returns:
            'features': float16 maps (C, h, w); 'label': int64 (H, W); 'name'.

        """
        index = key[1]
        return {
            'features': [torch.from_numpy(np.array(f[index])) for f in self._files],
            'label': torch.from_numpy(self._labels[index].astype(np.int64)),
            'name': f'cached sample {index}',
        }

    @torch.inference_mode()
    def _maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        device = next(self.parts.model.parameters()).device
        return self.parts.features(normalise(images.to(device), self.parts.spec))

    def _check_meta(self) -> None:
        path = self.folder / 'cache.json'
        if path.is_file():
            try:
                old = json.loads(path.read_text())
            except ValueError as error:
                raise TrainingError(f'{path}: broken ({error}); delete the folder') from error
            differ = [k for k in self.meta if old.get(k) != self.meta[k]]
            if differ:
                raise TrainingError(
                    f'{self.folder}: was made with another {", ".join(differ)}; delete it or '
                    f'choose another folder'
                )
        else:
            path.write_text(json.dumps(self.meta))

    def _open(self, name: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        path = self.folder / f'{name}.npy'
        if path.is_file():
            return np.lib.format.open_memmap(path, 'r+')
        return np.lib.format.open_memmap(path, 'w+', dtype, (self.count, *shape))

    def _build(self, dataset: Dataset, seed: int, batch_size: int, workers: int) -> None:
        progress = self.folder / 'done'
        done = int(progress.read_text()) if progress.is_file() else 0
        if done >= self.count:
            return
        # Always whole batches from the beginning of the stream, so a resumed build is the same.
        sampler = StreamSampler(
            len(dataset),  # type: ignore[arg-type]
            batch_size,
            seed,
            start=done // batch_size,
            stop=-(-self.count // batch_size),
        )
        at = done // batch_size * batch_size
        for batch in loader(dataset, sampler, workers):
            if list(batch['label'].shape[1:]) != self.meta['label']:
                raise TrainingError(f'cache: {batch["name"][0]}: samples differ in size')
            stop = min(at + len(batch['label']), self.count)
            maps = self._maps(batch['image'])
            for file, m in zip(self._files, maps, strict=True):
                file[at:stop] = m[: stop - at].clamp(-65504, 65504).half().cpu().numpy()
            self._labels[at:stop] = batch['label'][: stop - at].numpy()
            at = stop
            if at == self.count or at // batch_size % 20 == 0:
                for file in (*self._files, self._labels):
                    file.flush()  # type: ignore[attr-defined]
                progress.write_text(str(at))
                log.info('feature cache: %d of %d samples', at, self.count)

    def delete(self) -> None:
        """Remove the cache from the disk."""
        self._files, self._labels = [], np.empty(0, np.uint8)
        shutil.rmtree(self.folder, ignore_errors=True)


def backbone_hash(parts: Parts) -> str:
    """Short hash of everything in the model but its trained parts."""
    trained = parts.prefixes([*parts.decoder, *parts.uem])
    digest = hashlib.sha256()
    for name, value in sorted(parts.model.state_dict().items()):
        if not name.startswith(trained or ('\0',)):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
