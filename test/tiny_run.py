# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A tiny run, started by tests as a process of its own: `tiny_run.py FOLDER key=value ...`."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from ood_training.settings import Task, TrainSettings
from ood_training.trainer import Trainer


class TinySet(Dataset):
    """Random images with random labels, some of them void."""

    def __init__(self, length: int = 13) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> dict:
        rng = np.random.default_rng(key)
        image = rng.integers(0, 256, (3, 8, 10), np.uint8)
        label = (image.astype(np.int64).sum(0) // 192) % 3
        label[: rng.integers(0, 6)] = 255
        return {
            'image': torch.from_numpy(image),
            'label': torch.from_numpy(label),
            'name': f'image {key[1]} of epoch {key[0]}',
        }


class TinyTask(Task):
    """Two convolutions with dropout over a frozen stem."""

    def __init__(self, nan_at: int = -1, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.stem = nn.Conv2d(3, 4, 1).requires_grad_(False)
        self.net = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(8, 3, 1),
        )
        self.register_buffer('seen', torch.zeros(1))
        self.nan_at = nan_at

    def forward(self, batch: dict) -> dict[str, Tensor]:
        logits = self.net(self.stem(batch['image'].float() / 255))
        loss = F.cross_entropy(logits, batch['label'], ignore_index=255)
        if int(self.seen) == self.nan_at:
            loss = loss * float('nan')
        self.seen += 1
        return {'loss': loss, 'half': loss / 2}

    def trained_state(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.state_dict().items() if not k.startswith('stem.')}

    def validate(self) -> dict[str, float]:
        return {'size': float(sum(p.detach().abs().sum() for p in self.net.parameters()))}


SETTINGS = TrainSettings(
    steps=20,
    batch_size=2,
    lr=1e-2,
    warmup_steps=4,
    ema=0.9,
    seed=3,
    accelerator='cpu',
    checkpoint_every=3,
    log_every=1,
)


def main() -> None:
    folder, options = Path(sys.argv[1]), dict(pair.split('=') for pair in sys.argv[2:])
    torch.set_num_threads(1)
    sleep = float(options.pop('sleep', 0))
    dropout = float(options.pop('dropout', 0.3))
    changes = {key: json.loads(value) for key, value in options.items()}
    trainer = Trainer(
        TinyTask(dropout=dropout),
        TinySet(),
        dataclasses.replace(SETTINGS, **changes),
        folder,
    )
    if sleep:
        step = trainer._train_step

        def slow(batches: list) -> dict[str, float]:
            time.sleep(sleep)
            return step(batches)

        trainer._train_step = slow
    trainer.fit()
    if int(os.environ.get('RANK', 0)) == 0:
        torch.save(trainer.task.state_dict(), folder / 'final.pt')


if __name__ == '__main__':
    main()
