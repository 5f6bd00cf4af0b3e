# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training of the light prompt generator on scenes with their score maps.

The loss is CenterNet's penalty-reduced focal loss on the centres (arXiv 1904.07850, eq. 1) and the
generalised IoU (arXiv 1902.09630) of the boxes that places near a centre predict. Then the scores
are calibrated on scenes that were kept aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import generalized_box_iou_loss

from ood_perception.masks.boxes import overlaps
from ood_perception.masks.crops import log_odds
from ood_perception.masks.detection_prompts import propose
from ood_perception.masks.score_detector import (
    SHORT_SIDE,
    STRIDE,
    ScoreDetector,
    detector_input,
    reduction,
)
from ood_training.fits import fit_platt
from research.mask_validation import LEAST_AREA, match
from research.score_scenes import Scene
from research.small_networks import start_from, train_small

CROP = (288, 384)
"""Height and width in pixels of what is learnt from, a part of a scene."""
SCALES = 0.25
"""Standard deviation of the logarithm of the factor by which most examples are scaled."""
SHIFT = 0.1
"""Share of the frame's sides by which examples are shifted at most."""
KEPT = 10
"""One of so many scenes is kept aside for the calibration of the scores."""
CANDIDATES = 32
"""Boxes of each scene that the calibration looks at."""
EPOCH = 10_000
"""Examples that are called an epoch: each is drawn anew."""

Scenes = Sequence[Scene] | Callable[[np.random.Generator], Scene]
"""Scenes to draw from, or a function that makes one."""


def draw(scenes: Scenes, rng: np.random.Generator) -> Scene:
    """Take one scene at random."""
    return scenes(rng) if callable(scenes) else scenes[int(rng.integers(len(scenes)))]


def split(scenes: Scenes, rng: np.random.Generator) -> tuple[Scenes, Sequence[Scene]]:
    """Scenes to learn from, and scenes to calibrate on: others, if there are enough."""
    if callable(scenes):
        return scenes, [scenes(rng) for _ in range(10 * KEPT)]
    if len(scenes) < 2 * KEPT:
        return scenes, scenes
    return [s for i, s in enumerate(scenes) if i % KEPT], scenes[::KEPT]


def targets(
    boxes: np.ndarray, tiny: np.ndarray, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    What the detector should say.

    Args:
        boxes: float (N, 4) XYXY in pixels of the network's input, objects to be found.
        tiny: float (M, 4), objects that may be found or not.
        height: of the network's output.
        width: of the network's output.

    Returns:
        heat float32 (height, width), 0..1, a Gaussian on every centre (1 at the centre's place);
        sides float32 (4, height, width), distances in pixels to the sides of the box whose centre
        is nearest in its own measure; weight float32 (height, width), where those count; asked
        float32 (height, width), 0 where a false centre costs nothing.

    """
    heat, asked = np.zeros((height, width), np.float32), np.ones((height, width), np.float32)
    sides = np.zeros((4, height, width), np.float32)
    y = (np.arange(height) * STRIDE + STRIDE / 2)[:, None]
    x = (np.arange(width) * STRIDE + STRIDE / 2)[None]
    for x1, y1, x2, y2 in tiny / STRIDE:
        asked[max(0, int(y1) - 1) : int(y2) + 2, max(0, int(x1) - 1) : int(x2) + 2] = 0
    for x1, y1, x2, y2 in boxes:
        row = min(height - 1, max(0, int((y1 + y2) / 2 / STRIDE)))
        column = min(width - 1, max(0, int((x1 + x2) / 2 / STRIDE)))
        spread_x, spread_y = (max(0.8 * STRIDE, side / 8) for side in (x2 - x1, y2 - y1))
        distance = ((x - x[0, column]) / spread_x) ** 2 + ((y - y[row, 0]) / spread_y) ** 2
        bump = np.exp(-distance / 2)
        here = np.stack(np.broadcast_arrays(x - x1, y - y1, x2 - x, y2 - y))
        sides = np.where(bump > heat, here, sides)
        heat = np.maximum(heat, bump)
        asked[row, column] = 1
    weight = np.where((heat > 0.3) & (sides > 0).all(0), heat, 0.0)
    found = (heat, sides.clip(min=0.4), weight, asked)
    heat, sides, weight, asked = (torch.from_numpy(v.astype(np.float32)) for v in found)
    return heat, sides, weight, asked


def detection_loss(
    output: Tensor, heat: Tensor, sides: Tensor, weight: Tensor, asked: Tensor
) -> Tensor:
    """
    Loss of a batch.

    Args:
        output: float32 (B, 5, h, w) of `ScoreDetector`.
        heat: float32 (B, h, w) of `targets`.
        sides: float32 (B, 4, h, w) of `targets`.
        weight: float32 (B, h, w) of `targets`.
        asked: float32 (B, h, w) of `targets`.

    """
    probability = output[:, 0].sigmoid().clamp(1e-5, 1 - 1e-5)
    centre = heat > 0.999
    positive = -((1 - probability) ** 2) * probability.log() * centre
    negative = -((1 - heat) ** 4) * probability**2 * (1 - probability).log() * ~centre * asked
    focal = (positive + negative).sum() / centre.sum().clamp(min=1)
    chosen = weight > 0
    sign = output.new_tensor([-1.0, -1.0, 1.0, 1.0])
    predicted = output[:, 1:].permute(0, 2, 3, 1)[chosen] * sign
    wanted = sides.permute(0, 2, 3, 1)[chosen] * sign
    share = weight[chosen]
    giou = generalized_box_iou_loss(predicted, wanted) * share
    return focal + 2 * giou.sum() / share.sum().clamp(min=1e-3)


def example(
    scene: Scene, rng: np.random.Generator, crop: tuple[int, int] = CROP
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """
    Input and targets of a part of a scene, mirrored half of the time, scaled and shifted.

    Its colours, its noise and the calibration of its score are changed a little: none may matter.
    """
    scene = _reduced(scene)
    high, wide = scene.labels.shape
    height, width = min(crop[0], high), min(crop[1], wide)
    odds: Any = log_odds(torch.from_numpy(scene.probability.astype(np.float32))[None])[0].numpy()
    scale = np.exp(rng.normal(0, SCALES)) if rng.random() < 0.6 else 1.0
    mirror = -scale if rng.random() < 0.5 else scale
    dx, dy = rng.uniform(-SHIFT, SHIFT, 2) * (wide, high)
    left, top = rng.uniform(0, wide - width), rng.uniform(0, high - height)
    x, y = (1 - mirror) * wide / 2 + dx - left, (1 - scale) * high / 2 + dy - top
    # Pixel i is the square from i to i + 1 for boxes, and its centre at i for OpenCV.
    move = np.array([[mirror, 0, x + (mirror - 1) / 2], [0, scale, y + (scale - 1) / 2]])
    odds, image = (
        cv2.warpAffine(plane, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
        for plane in (odds, scene.image)
    )
    odds = odds + np.float32(rng.normal(0, 0.1))
    planes = detector_input(
        torch.from_numpy(recoloured(image, rng)).permute(2, 0, 1)[None],
        torch.sigmoid(4 * torch.from_numpy(odds))[None],
    )[0]
    boxes, areas = scene.boxes(), np.bincount(scene.labels.ravel(), minlength=1)[1:]
    corners = np.sort(boxes.reshape(-1, 2, 2) * (mirror, scale) + (x, y), 1)
    seen = corners.clip(0, (width, height))
    share = np.prod(seen[:, 1] - seen[:, 0], 1) / np.prod(corners[:, 1] - corners[:, 0], 1)
    wanted = (areas[areas > 0] * scale**2 >= LEAST_AREA) & (share > 0.4)
    seen = seen.reshape(-1, 4)
    size = [side // STRIDE for side in planes.shape[1:]]
    return (planes, *targets(seen[wanted], seen[~wanted & (share > 0.01)], *size))


def _reduced(scene: Scene) -> Scene:
    """Bring a scene to the size at which the detector sees it, see `detector_input`."""
    scale = SHORT_SIDE / min(scene.labels.shape)
    if scale >= 1:
        return scene
    image, labels, probability = (
        cv2.resize(plane, None, fx=scale, fy=scale, interpolation=how)
        for plane, how in (
            (scene.image, cv2.INTER_AREA),
            (scene.labels, cv2.INTER_NEAREST),
            (scene.probability.astype(np.float32), cv2.INTER_AREA),
        )
    )
    return Scene(image, labels, probability)


def recoloured(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change contrast, colours and noise of uint8 (H, W, 3) at random; one in ten is grey."""
    gain = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, 3)
    picture: Any = (image - 127.0) * gain + 127 + rng.uniform(-25, 25) + rng.uniform(-8, 8, 3)
    if rng.random() < 0.1:
        picture = picture.mean(2, keepdims=True).repeat(3, 2)
    if rng.random() < 0.3:
        picture = picture + rng.normal(0, rng.uniform(0, 6), picture.shape)
    return picture.clip(0, 255).astype(np.uint8)  # type: ignore[no-any-return]


@torch.no_grad()
def calibrate(model: ScoreDetector, scenes: Iterable[Scene]) -> None:
    """
    Make the score of a box the probability that there is an object (Platt 1999), in the weights.

    A focal loss leaves scores too low for that.

    Args:
        model: in evaluation mode; the layer that gives the logits is changed.
        scenes: which the model has not learnt from. Left as it is where none of its boxes fits an
            object, or none does not.

    """
    logits, fits = [], []
    for scene in scenes:
        probability = torch.from_numpy(scene.probability.astype(np.float32))[None]
        height, width = scene.labels.shape
        image = torch.from_numpy(scene.image).permute(2, 0, 1)[None]
        output = model(detector_input(image, probability))
        scale = reduction(height, width)
        found = propose(output, height, width, CANDIDATES, CANDIDATES, scale=scale)
        boxes, scores, valid = found
        found = boxes[valid]
        real = torch.from_numpy(scene.boxes(LEAST_AREA))
        hits = {column for _, column in match(overlaps(real, found)[0].numpy(), 0.5)}
        logits.append(torch.logit(scores[valid].double(), 1e-9).numpy())
        fits.append(np.array([i in hits for i in range(len(found))], np.int64))
    try:
        fitted = fit_platt(np.concatenate(logits), np.concatenate(fits))
    except ValueError:
        return
    if fitted.slope > 0:
        weight, bias = model.head.weight, model.head.bias
        assert bias is not None
        weight[0] *= fitted.slope
        bias[0] = fitted.slope * bias[0] + fitted.offset


class Examples(Dataset):
    """
    Examples of scenes as a function of (seed, epoch, index).

    Args:
        scenes: to draw from.
        seed: of all chance.

    """

    def __init__(self, scenes: Scenes, seed: int) -> None:
        self.scenes, self.seed = scenes, seed

    def __len__(self) -> int:
        return EPOCH

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return one example: 'input' of the detector, 'wanted' as `targets` gives it."""
        rng = np.random.default_rng((self.seed, *key))
        inputs, *wanted = example(draw(self.scenes, rng), rng)
        return {'input': inputs, 'wanted': wanted, 'name': f'example {key}'}


def train_prompts(
    scenes: Scenes,
    output: Path,
    steps: int = 5000,
    batch: int = 8,
    learning_rate: float = 3e-3,
    seed: int = 0,
    start: Path | None = None,
) -> ScoreDetector:
    """
    Train the light prompt generator and save it as safetensors.

    Args:
        scenes: scenes of one size to draw from, or a function that makes one.
        output: file to be written.
        steps: see `small_networks.train_small`.
        batch: scenes in a step.
        learning_rate: peak of the one-cycle schedule (AdamW).
        seed: of all chance.
        start: weights to start from, none = random.

    Returns:
        The detector in evaluation mode.

    Raises:
        TrainingError: weights that cannot be read or written, or a loss that is not a number.

    """
    torch.manual_seed(seed)
    model = ScoreDetector()
    start_from(model, start)
    learnt, kept = split(scenes, np.random.default_rng(seed))
    train_small(
        model,
        Examples(learnt, seed),
        detection_loss,
        output,
        steps,
        batch,
        learning_rate,
        seed,
        finish=lambda: calibrate(model, kept),
    )
    return model
