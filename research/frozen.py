# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Samples that carry what the frozen network says of them, computed in the process that loads them.

On a CPU the loading process then runs samples and frozen layers, the training process the heads,
each on cores of its own: neither waits for the other within an operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ood_perception.host_cpu import has_bfloat16_tiles
from ood_training.parts import Parts, normalise
from research.fast_features import Features, fast_features


class FrozenFeatures(Dataset):
    """
    The samples of a data set with frozen maps instead of images.

    The network is prepared at the first sample, so in the process that loads.

    Args:
        dataset: map-style; samples with 'image' uint8 (3, H, W), 'label' and 'name', one size.
        parts: of the model, on the CPU; needs its backbone.
        logits: whether the class logits are frozen too.

    """

    def __init__(self, dataset: Dataset, parts: Parts, logits: bool) -> None:
        self.dataset, self.parts = dataset, parts
        self._network = _Frozen(parts, logits).eval()
        self._logits = logits
        self._run: Features | None = None

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """
        Return one sample.

        Returns:
            'features': float32 maps (C, h, w); 'logits': float32 (K, h, w) where asked for;
            'label' and 'name' as the data set has them.

        """
        return self.__getitems__([key])[0]

    @torch.no_grad()
    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
        """Return the samples of a batch: the network sees them at once."""
        samples = [self.dataset[key] for key in keys]
        images = normalise(torch.stack([s['image'] for s in samples]), self.parts.spec)
        if self._run is None:
            self._run = self._network.fast(images)
        maps = self._run(images)
        features = maps[:-1] if self._logits else maps
        found = []
        for i, sample in enumerate(samples):
            item: dict[str, Any] = {'features': [m[i] for m in features]}
            if self._logits:
                item['logits'] = maps[-1][i]
            found.append({**item, 'label': sample['label'], 'name': sample['name']})
        return found


class _Frozen(nn.Module):
    """Images -> the backbone's maps, and the class logits as the last."""

    def __init__(self, parts: Parts, logits: bool) -> None:
        super().__init__()
        self.backbone = parts.backbone
        self.head = parts.logits if logits else None

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = list(self.backbone(images))
        return [*maps, self.head(maps)] if self.head is not None else maps

    def fast(self, images: Tensor) -> Features:
        """
        Return what computes `forward` fast, see `fast_features`.

        On a CPU with units for it all but the first layers are in bfloat16. These stay in float32:
        outlines are learnt from their maps, and their rounding would reach every other one.
        """
        if not has_bfloat16_tiles():
            return fast_features(self, images)
        first = fast_features(Shallow(self.backbone).eval(), images)
        rest = fast_features(_Rest(self).eval(), first(images)[-1], bfloat16=True)

        def run(batch: Tensor) -> list[Tensor]:
            fine = first(batch)
            return [*fine, *rest(fine[-1])]

        return run


class _Rest(nn.Module):
    """The map of stride 4 -> the coarser ones, and the class logits as the last."""

    def __init__(self, frozen: _Frozen) -> None:
        super().__init__()
        self.deep, self.head = Deep(frozen.backbone), frozen.head

    def forward(self, quarter: Tensor) -> list[Tensor]:
        maps = self.deep(quarter)
        # the head begins at stride 4
        return [*maps, self.head([quarter, quarter, *maps])] if self.head is not None else maps


class Shallow(nn.Module):
    """The backbone's first layers, images -> maps of stride 2 and 4; with :class:`Deep` all."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        stem = (backbone.get_submodule(name) for name in ('conv_stem', 'bn1'))
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.ModuleList(list(backbone.blocks)[:2])  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps of 16 and 24 channels."""
        maps = [self.stem(images)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps[1:]


class Deep(nn.Module):
    """The backbone's other layers, from the map of stride 4 to those of stride 8, 16 and 32."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(list(backbone.blocks)[2:])  # type: ignore[arg-type]

    def forward(self, quarter: Tensor) -> list[Tensor]:
        """(B, 24, H/4, W/4) -> maps of 40, 112 and 320 channels."""
        maps, x = [], quarter
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number % 2 == 0:
                maps.append(x)
        return maps
