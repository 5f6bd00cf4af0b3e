# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training of the mask head: crops of scenes, binary cross-entropy and dice.

The boxes are those that it will meet: true ones with their corners moved, what the training-free
prompts propose on the scene's score map, and some of their false alarms, whose mask is empty.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.masks.boxes import overlaps
from ood_perception.masks.mask_head import CHANNELS, MARGIN, SIZE, MaskHead, cut, windows
from ood_perception.training.checkpointing import TrainingError
from research.fit import Told, fit, start_from
from research.prompts import Scenes, draw
from research.score_scenes import Scene

LEAST_AREA = 40
"""Pixels below which an object is too small to learn its outline."""
MEANT, ALARM = 0.2, 0.02
"""Overlap with an object's box from which a proposal means it, and below which it means none."""
ALARMS = 2
"""Most false alarms of a scene."""
MOST_DRAWS = 1000
"""Scenes looked at for the crops of one step."""


def crops(
    scene: Scene, rng: np.random.Generator, jitter: float = 0.12, size: int = SIZE
) -> tuple[Tensor, Tensor]:
    """
    Cut a scene's objects and some of its false alarms out as prompts would.

    Args:
        scene: a frame with objects.
        rng: source of all chance.
        jitter: standard deviation of the true boxes' corners, as a share of their sides.
        size: side of the crops.

    Returns:
        inputs float32 (N, 5, size, size) and targets float32 (N, size, size), the share 0..1 of
        the object in each pixel.

    """
    image = torch.from_numpy(scene.image).permute(2, 0, 1)
    probability = torch.from_numpy(scene.probability)
    height, width = scene.labels.shape
    inputs, targets = [], []
    for box, mask in _prompts(scene, rng, jitter):
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


def train_mask_head(
    scenes: Scenes,
    output: Path,
    seconds: float = 300.0,
    batch: int = 16,
    learning_rate: float = 3e-3,
    seed: int = 0,
    start: Path | None = None,
    progress: Told | None = None,
    steps: int = 0,
) -> tuple[MaskHead, int]:
    """
    Train the mask head and save it as safetensors.

    Args:
        scenes: scenes to draw from, or a function that makes one.
        output: file to be written.
        seconds: of wall time that the training may take.
        batch: crops in a step.
        learning_rate: peak of the one-cycle schedule (AdamW).
        seed: of all chance.
        start: weights to start from, none = random.
        progress: called with the share done 0..1 and the loss, about once a second.
        steps: instead of the time, if not 0; see `fit.fit`.

    Returns:
        The head in evaluation mode, and the steps done.

    Raises:
        TrainingError: scenes without a single object, weights that cannot be read or written, or
            a loss that is not a number.

    """
    from ood_perception.training.cards import write_weights

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = MaskHead()
    start_from(model, start)
    pool = [torch.zeros(0, CHANNELS, SIZE, SIZE), torch.zeros(0, SIZE, SIZE)]

    def next_batch() -> tuple[Tensor, ...]:
        nonlocal pool
        # More crops than one step needs, so that a step does not see one scene's objects only.
        for _ in range(MOST_DRAWS):
            if len(pool[0]) >= 4 * batch:
                break
            found = crops(draw(scenes, rng), rng)
            pool = [torch.cat(p) for p in zip(pool, found, strict=True)]
        if len(pool[0]) < batch:
            raise TrainingError(f'{MOST_DRAWS} scenes hold fewer than {batch} objects')
        pick = torch.from_numpy(rng.permutation(len(pool[0])))
        inputs, targets = (p[pick[:batch]] for p in pool)
        pool = [p[pick[batch:]] for p in pool]
        if rng.random() < 0.5:
            inputs, targets = inputs.flip(-1), targets.flip(-1)
        return inputs, targets

    done = fit(model, next_batch, mask_loss, seconds, steps, learning_rate, progress)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_weights(output, model.state_dict())
    return model, done
