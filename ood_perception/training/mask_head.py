# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Training of the mask head: crops of scenes, jittered boxes, binary cross-entropy and dice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.masks.light_prompts import log_odds
from ood_perception.masks.mask_head import CHANNELS, MARGIN, SIZE, MaskHead, cut, windows
from ood_perception.training.prompts import Scenes, draw, one_cycle
from ood_perception.training.score_scenes import Scene


def crops(
    scene: Scene, rng: np.random.Generator, jitter: float = 0.12, size: int = SIZE
) -> tuple[Tensor, Tensor]:
    """
    Cut every object of a scene out as a prompt would.

    Args:
        scene: a frame with objects.
        rng: source of all chance.
        jitter: standard deviation of the boxes' corners, as a share of their sides.
        size: side of the crops.

    Returns:
        inputs float32 (N, 5, size, size) and targets float32 (N, size, size), the share 0..1 of
        the object in each pixel.

    """
    image = torch.from_numpy(scene.image).permute(2, 0, 1)
    odds = log_odds(torch.from_numpy(scene.probability)[None], 1)[0, 0]
    height, width = scene.labels.shape
    inputs, targets = [], []
    for index in np.unique(scene.labels[scene.labels > 0]):
        mask = scene.labels == index
        y, x = np.nonzero(mask)
        if len(y) < 40:
            continue
        box = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1], np.float32)
        sides = np.tile(box[2:] - box[:2], 2)
        box = box + rng.normal(0, jitter, 4).clip(-0.3, 0.3) * sides
        box = np.clip(box, 0, [width, height, width, height]).astype(np.float32)
        if (box[2:] - box[:2]).min() < 4:
            continue
        (window,) = windows(torch.from_numpy(box)[None], height, width, MARGIN)
        inputs.append(cut(image, odds, window, tuple(box.tolist()), size))
        x1, y1, x2, y2 = window
        part = torch.from_numpy(mask[y1:y2, x1:x2].astype(np.float32))[None, None]
        targets.append(F.interpolate(part, (size, size), mode='bilinear', antialias=True)[0, 0])
    if not inputs:
        return torch.zeros(0, CHANNELS, size, size), torch.zeros(0, size, size)
    return torch.stack(inputs), torch.stack(targets)


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
    progress: Callable[[float, float], None] | None = None,
) -> MaskHead:
    """
    Train the mask head for a time and save it as safetensors.

    Args:
        scenes: scenes to draw from, or a function that makes one.
        output: file to be written.
        seconds: of wall time that the training may take.
        batch: crops in a step.
        learning_rate: peak of the one-cycle schedule (AdamW).
        seed: of all chance.
        start: weights to start from, none = random.
        progress: called with the share done 0..1 and the loss, about once a second.

    """
    from safetensors.torch import load_file

    from ood_perception.training.cards import write_weights

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = MaskHead()
    if start is not None:
        model.load_state_dict(load_file(start))
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=1e-2)
    begin = told = time.monotonic()
    pool = [torch.zeros(0, CHANNELS, SIZE, SIZE), torch.zeros(0, SIZE, SIZE)]
    model.train()
    while (done := (time.monotonic() - begin) / seconds) < 1:
        while len(pool[0]) < 4 * batch:
            found = crops(draw(scenes, rng), rng)
            pool = [torch.cat(p) for p in zip(pool, found, strict=True)]
        pick = torch.from_numpy(rng.permutation(len(pool[0])))
        inputs, targets = (p[pick[:batch]] for p in pool)
        pool = [p[pick[batch:]] for p in pool]
        if rng.random() < 0.5:
            inputs, targets = inputs.flip(-1), targets.flip(-1)
        for group in optimiser.param_groups:
            group['lr'] = learning_rate * one_cycle(done)
        loss = mask_loss(model(inputs), targets)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        if progress is not None and time.monotonic() - told > 1:
            told = time.monotonic()
            progress(done, float(loss.detach()))
    model.eval()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_weights(output, model.state_dict())
    return model
