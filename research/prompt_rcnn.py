# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training of S2M's detector on score maps, with the published noise and schedule.

Paper: Zhao et al., "Segment Every Out-of-Distribution Object" (S2M), CVPR 2024, and its code.
One difference is known: torchvision's box losses are smooth below 1/9, detectron2's are plain L1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.models.detection.image_list import ImageList

from ood_perception.models.faster_rcnn import PIXEL_MEAN, PromptRCNN
from ood_training.checkpointing import TrainingError
from ood_training.settings import Task

Array = np.ndarray


class ScoreMaps(Dataset):
    """
    Score maps with one box each, in S2M's layout: `scores/*.npz` (arr_0) and `ood.json`.

    Args:
        folder: holds `ood.json`, a list of {file_name, annotations: [{bbox: XYXY}]}, and the maps.
        size: side in pixels to which maps are resized (800 in S2M, from 700).
        seed: of flips and noise.
        noise: half range of the multiplicative noise, per pixel and channel.

    Raises:
        TrainingError: a missing or broken file, or an empty list.

    """

    def __init__(self, folder: Path, size: int = 800, seed: int = 0, noise: float = 0.01) -> None:
        self.folder, self.size, self.seed, self.noise = folder, size, seed, noise
        path = folder / 'ood.json'
        try:
            rows = json.loads(path.read_text(encoding='utf-8'))
            self.rows = [(row['file_name'], row['annotations'][0]['bbox']) for row in rows]
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise TrainingError(f'{path}: cannot be read as a list of boxes: {error!r}') from error
        if not self.rows:
            raise TrainingError(f'{path}: lists no score map')
        missing = [name for name, _ in self.rows if not (folder / name).is_file()]
        if missing:
            raise TrainingError(f'{folder / missing[0]}: missing ({len(missing)} maps are)')

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """
        Return map `index`: 'score' float32 (3, size, size), 'box' float32 (4,) XYXY, 'name'.

        The three channels are copies of the map, each with its own noise.
        """
        name, box = self.rows[key[1]]
        path = self.folder / name
        try:
            with np.load(path) as file:
                score = torch.from_numpy(file['arr_0'].astype(np.float32))
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(f'{path}: cannot be read as a score map: {error}') from error
        if score.ndim != 2 or not torch.isfinite(score).all():
            raise TrainingError(f'{path}: expected finite (H, W) scores, got {score.shape}')
        height, width = score.shape
        size = (self.size, self.size)
        score = F.interpolate(score[None, None], size, mode='bilinear', align_corners=False)[0]
        scale = torch.tensor([size[1] / width, size[0] / height] * 2)
        corners = torch.tensor(box, dtype=torch.float32) * scale
        if not (corners[2] > corners[0] and corners[3] > corners[1]):
            raise TrainingError(f'{path}: expected a box XYXY, got {box}')
        rng = np.random.default_rng((self.seed, *key))
        if rng.random() < 0.5:
            score = score.flip(-1)
            corners = torch.stack(
                [size[1] - corners[2], corners[1], size[1] - corners[0], corners[3]]
            )
        noise = rng.uniform(1 - self.noise, 1 + self.noise, (3, *size)).astype(np.float32)
        return {'score': score * torch.from_numpy(noise), 'box': corners, 'name': str(path)}


class PromptTask(Task):
    """RPN and box losses of the detector; every object is class 1, stem and res2 are frozen."""

    def __init__(self, model: PromptRCNN) -> None:
        super().__init__()
        self.model = model
        for name, parameter in model.named_parameters():
            frozen = ('backbone.body.conv1', 'backbone.body.bn1', 'backbone.body.layer1')
            parameter.requires_grad_(not name.startswith(frozen))

    def weigh(self, batch: dict[str, Any]) -> Tensor:
        """Weight of the batch: its maps."""
        return torch.tensor(float(len(batch['box'])), device=batch['box'].device)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return 'loss' and its four parts, means over the maps."""
        score = batch['score']
        height, width = score.shape[2:]
        mean = torch.tensor(PIXEL_MEAN, device=score.device).view(1, 3, 1, 1)
        images = F.pad(score - mean, (0, -width % 32, 0, -height % 32))
        listed = ImageList(images, [(height, width)] * len(images))
        one = torch.ones(1, dtype=torch.int64, device=score.device)
        targets = [{'boxes': box[None], 'labels': one} for box in batch['box']]
        maps = self.model.backbone(images)
        proposals, first = self.model.rpn(listed, maps, targets)
        _, second = self.model.roi_heads(maps, proposals, listed.image_sizes, targets)
        losses = {**first, **second}
        return {'loss': torch.stack(list(losses.values())).sum(), **losses}


def write_score_maps(folder: Path, items: Iterable[tuple[Array, Array]]) -> int:
    """
    Write maps in the layout of :class:`ScoreMaps`.

    Args:
        folder: gets `ood.json` and `scores/`.
        items: score float (H, W) and label uint8 (H, W), 254 = unknown; those without an
            unknown pixel are left out.

    Returns:
        How many were written.

    """
    (folder / 'scores').mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for score, label in items:
        y, x = np.nonzero(label == 254)
        if not len(y):
            continue
        name = f'scores/{len(rows)}.npz'
        np.savez_compressed(folder / name, score.astype(np.float32))
        box = [float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)]
        rows.append({'file_name': name, 'annotations': [{'bbox': box, 'category_id': 0}]})
    if not rows:
        raise TrainingError(f'{folder}: no sample has an unknown object')
    (folder / 'ood.json').write_text(json.dumps(rows), encoding='utf-8')
    return len(rows)
