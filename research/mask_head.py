# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training of the mask head: crops of scenes, binary cross-entropy and dice.

The boxes are those that it will meet: true ones with their corners moved, what the training-free
prompts propose on the scene's score map, and some of their false alarms, whose mask is empty.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from ood_perception.masks.boxes import overlaps
from ood_perception.masks.crops import MARGIN, SIZE, cut, windows
from ood_perception.masks.mask_head import CHANNELS, MaskHead
from ood_training.checkpointing import TrainingError
from research.prompts import Scenes, draw
from research.score_scenes import Scene
from research.small_networks import start_from, train_small

LEAST_AREA = 40
"""Pixels below which an object is too small to learn its outline."""
MEANT, ALARM = 0.2, 0.02
"""Overlap with an object's box from which a proposal means it, and below which it means none."""
ALARMS = 2
"""False alarms of a scene that are used at most."""
DRAWS = 1000
"""Scenes looked at for one crop."""
EPOCH = 10_000
"""Crops that are called an epoch: each is drawn anew."""


def crops(
    scene: Scene,
    rng: np.random.Generator,
    jitter: float = 0.12,
    size: int = SIZE,
    limit: int = 0,
) -> tuple[Tensor, Tensor]:
    """
    Cut a scene's objects and some of its false alarms out as prompts would.

    Args:
        scene: a frame with objects.
        rng: source of all chance.
        jitter: standard deviation of the true boxes' corners, as a share of their sides.
        size: side of the crops.
        limit: crops that are chosen at random of them, 0 = all.

    Returns:
        inputs float32 (N, 5, size, size) and targets float32 (N, size, size), the share 0..1 of
        the object in each pixel.

    """
    image = torch.from_numpy(scene.image).permute(2, 0, 1)
    probability = torch.from_numpy(scene.probability)
    height, width = scene.labels.shape
    inputs, targets = [], []
    prompts = _prompts(scene, rng, jitter)
    if limit:
        prompts = [prompts[i] for i in rng.permutation(len(prompts))[:limit]]
    for box, mask in prompts:
        box = np.clip(box, 0, [width, height, width, height]).astype(np.float32)
        if (box[2:] - box[:2]).min() < 4:
            continue
        corners = box.tolist()
        (window,) = windows([corners], height, width, MARGIN)
        inputs.append(cut(image, probability, window, corners, size))
        x1, y1, x2, y2 = window
        part = torch.from_numpy(mask[y1:y2, x1:x2].astype(np.float32))[None, None]
        targets.append(F.interpolate(part, (size, size), mode='bilinear', antialias=True)[0, 0])
    if not inputs:
        return torch.zeros(0, CHANNELS, size, size), torch.zeros(0, size, size)
    return torch.stack(inputs), torch.stack(targets)


def _prompts(
    scene: Scene, rng: np.random.Generator, jitter: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Boxes (4,) and the masks bool (H, W) that they mean, empty for false alarms."""
    masks = [scene.labels == index for index in np.unique(scene.labels[scene.labels > 0])]
    truth = scene.boxes()
    prompts = []
    for box, mask in zip(truth, masks, strict=True):
        if mask.sum() >= LEAST_AREA:
            sides = np.tile(box[2:] - box[:2], 2)
            prompts.append((box + rng.normal(0, jitter, 4).clip(-0.3, 0.3) * sides, mask))
    nothing, alarms = np.zeros(scene.labels.shape, bool), []
    proposals = np.zeros((0, 4), np.float32) if scene.proposals is None else scene.proposals
    for box in proposals:
        if not len(truth):
            alarms.append((box, nothing))
            continue
        iou, inside = overlaps(torch.from_numpy(box)[None], torch.from_numpy(truth))
        best = int(iou.argmax())
        if float(iou.max()) >= MEANT and masks[best].sum() >= LEAST_AREA:
            prompts.append((box, masks[best]))
        elif float(inside.max()) < ALARM:
            alarms.append((box, nothing))
    keep = rng.permutation(len(alarms))[:ALARMS]
    return prompts + [alarms[i] for i in keep]


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of binary cross-entropy and 1 - dice, both (N, s, s) -> scalar."""
    probability = logits.sigmoid()
    common = (probability * targets).sum((1, 2))
    dice = (2 * common + 1) / (probability.sum((1, 2)) + targets.sum((1, 2)) + 1)
    return F.binary_cross_entropy_with_logits(logits, targets) + (1 - dice).mean()


class Crops(Dataset):
    """
    Single crops of scenes, mirrored half of the time, as a function of (seed, epoch, index).

    Args:
        scenes: see `prompts.Scenes`.
        seed: of all chance.

    """

    def __init__(self, scenes: Scenes, seed: int) -> None:
        self.scenes, self.seed = scenes, seed

    def __len__(self) -> int:
        return EPOCH

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return one crop: 'input' (5, s, s), 'wanted' [its mask (s, s)]. Raises TrainingError."""
        rng = np.random.default_rng((self.seed, *key))
        for _ in range(DRAWS):
            inputs, targets = crops(draw(self.scenes, rng), rng, limit=1)
            if len(inputs):
                crop, mask = inputs[0], targets[0]
                if rng.random() < 0.5:
                    crop, mask = crop.flip(-1), mask.flip(-1)
                return {'input': crop, 'wanted': [mask], 'name': f'crop {key}'}
        raise TrainingError(f'{DRAWS} scenes hold no object')


def train_mask_head(
    scenes: Scenes,
    output: Path,
    steps: int = 3500,
    batch: int = 16,
    learning_rate: float = 3e-3,
    seed: int = 0,
    start: Path | None = None,
) -> MaskHead:
    """
    Train the mask head and save it as safetensors.

    Args:
        scenes: scenes to draw from, or a function that makes one.
        output: file to be written.
        steps: see `small_networks.train_small`.
        batch: crops in a step.
        learning_rate: peak of the one-cycle schedule (AdamW).
        seed: of all chance.
        start: weights to start from, none = random.

    Returns:
        The head in evaluation mode.

    Raises:
        TrainingError: scenes without a single object, weights that cannot be read or written, or
            a loss that is not a number.

    """
    torch.manual_seed(seed)
    model = MaskHead()
    start_from(model, start)
    train_small(model, Crops(scenes, seed), mask_loss, output, steps, batch, learning_rate, seed)
    return model
