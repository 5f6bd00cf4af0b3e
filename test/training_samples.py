# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Small models and samples that both halves of the training are tested on."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch.utils.data import Dataset

from ood_perception.models.registry import create_model
from ood_training.parts import split
from ood_training.presets import Stage
from ood_training.settings import TrainSettings

DINO = {'embed_dim': 16, 'depth': 4, 'num_heads': 2, 'table_size': 56}
SMALL = {
    'num_classes': 4,
    'channels': 8,
    'mlp_hidden': 8,
    'projector_hidden': [8],
    'out_indices': [0, 1, 2, 3],
    **DINO,
}
MODELS = {
    'compact': {'classes': 4, 'pretrained': False},
    'uem_dd': SMALL,
    'uem_gd': SMALL,
    'uem_gg': SMALL,
}


class Squares(Dataset):
    """Four classes told by their colour, and a white unknown square."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, key: tuple[int, int]) -> dict:
        rng = np.random.default_rng(key)
        label = np.kron(rng.integers(0, 4, (2, 2)), np.ones((28, 28), int)).astype(np.uint8)
        image = np.stack([label * 40, 160 - label * 30, label * 10 + 20], -1)
        y, x = rng.integers(0, 40, 2)
        image[y : y + 14, x : x + 14] = 255
        label[y : y + 14, x : x + 14] = 254
        label[0] = 255
        return {
            'image': torch.from_numpy(image.astype(np.uint8).transpose(2, 0, 1).copy()),
            'label': torch.from_numpy(label.astype(np.int64)),
            'name': str(key),
        }


SETTINGS = TrainSettings(
    steps=3, batch_size=2, lr=3e-3, schedule='constant', accelerator='cpu', checkpoint_every=100
)


def stage(kind=Stage, **changes):
    """Stage of a kind with some values changed, those of its trainer too."""
    own = {k: changes.pop(k) for k in list(changes) if k in vars(SETTINGS)}
    return kind(dataclasses.replace(SETTINGS, **own), **changes)


def model(name: str):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return split(create_model(name, **MODELS[name]))


def state(parts) -> dict:
    return {k: v.clone() for k, v in parts.model.state_dict().items()}


def changed(before: dict, after: dict) -> set[str]:
    return {k for k in before if not torch.equal(before[k], after[k])}
