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
from ood_perception.masks.layers import log_odds
from ood_perception.masks.score_detector import (
    STRIDE,
    ScoreDetector,
    cell_odds,
    cell_side,
    propose,
)
from ood_perception.scores.calibration import Calibration
from research.mask_validation import LEAST_AREA, match
from research.score_scenes import Scene
from research.small_networks import start_from, train_small

SCALES = 0.2
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


def targets(boxes: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """
    What the detector should say.

    Args:
        boxes: float32 (N, 4) XYXY in cells of the network's input.
        height: of the network's output.
        width: of the network's output.

    Returns:
        heat float32 (height, width), 0..1, a Gaussian on every centre (1 at the centre's place);
        sides float32 (4, height, width), distances in cells to the sides of the box whose centre
        is nearest in its own measure; weight float32 (height, width), where those count.

    """
    heat = torch.zeros(height, width)
    sides = torch.zeros(4, height, width)
    y = (torch.arange(height).float() * STRIDE + STRIDE / 2)[:, None].expand(height, width)
    x = (torch.arange(width).float() * STRIDE + STRIDE / 2)[None].expand(height, width)
    for x1, y1, x2, y2 in boxes.tolist():
        row = min(height - 1, max(0, int((y1 + y2) / 2 / STRIDE)))
        column = min(width - 1, max(0, int((x1 + x2) / 2 / STRIDE)))
        spread_x, spread_y = max(0.8, (x2 - x1) / 8), max(0.8, (y2 - y1) / 8)
        distance = ((x - x[0, column]) / spread_x) ** 2 + ((y - y[row, 0]) / spread_y) ** 2
        bump = torch.exp(-distance / 2)
        nearer = bump > heat
        here = torch.stack([x - x1, y - y1, x2 - x, y2 - y])
        sides = torch.where(nearer, here, sides)
        heat = torch.maximum(heat, bump)
    weight = torch.where((heat > 0.3) & (sides > 0).all(0), heat, 0.0)
    return heat, sides.clamp(min=0.1), weight


def detection_loss(output: Tensor, heat: Tensor, sides: Tensor, weight: Tensor) -> Tensor:
    """
    Loss of a batch.

    Args:
        output: float32 (B, 5, h, w) of `ScoreDetector`.
        heat: float32 (B, h, w) of `targets`.
        sides: float32 (B, 4, h, w) of `targets`.
        weight: float32 (B, h, w) of `targets`.

    """
    probability = output[:, 0].sigmoid().clamp(1e-5, 1 - 1e-5)
    centre = heat > 0.999
    positive = -((1 - probability) ** 2) * probability.log() * centre
    negative = -((1 - heat) ** 4) * probability**2 * (1 - probability).log() * ~centre
    focal = (positive + negative).sum() / centre.sum().clamp(min=1)
    chosen = weight > 0
    sign = output.new_tensor([-1.0, -1.0, 1.0, 1.0])
    predicted = output[:, 1:].permute(0, 2, 3, 1)[chosen] * sign
    wanted = sides.permute(0, 2, 3, 1)[chosen] * sign
    share = weight[chosen]
    giou = generalized_box_iou_loss(predicted, wanted) * share
    return focal + 2 * giou.sum() / share.sum().clamp(min=1e-3)


def example(scene: Scene, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input and targets of one scene, mirrored half of the time, scaled and shifted at random."""
    height, width = scene.labels.shape
    probability = torch.from_numpy(scene.probability.astype(np.float32))
    odds: np.ndarray = log_odds(probability[None])[0].numpy()
    scale = np.exp(rng.normal(0, SCALES)) if rng.random() < 0.6 else 1.0
    mirror = -scale if rng.random() < 0.5 else scale
    dx, dy = rng.uniform(-SHIFT, SHIFT, 2) * (width, height)
    x, y = (1 - mirror) * width / 2 + dx, (1 - scale) * height / 2 + dy
    # Pixel i is the square from i to i + 1 for boxes, and its centre at i for OpenCV.
    centred = (x + (mirror - 1) / 2, y + (scale - 1) / 2)
    odds = cv2.warpAffine(
        odds,
        np.array([[mirror, 0, centred[0]], [0, scale, centred[1]]]),
        (width, height),
        borderMode=cv2.BORDER_REPLICATE,
    )
    # A calibration that is a little off must not matter.
    moved = odds + np.float32(rng.normal(0, 0.1))
    inputs = cell_odds(torch.sigmoid(4 * torch.from_numpy(moved))[None])[0]
    corners = scene.boxes(LEAST_AREA).reshape(-1, 2, 2) * (mirror, scale) + (x, y)
    corners = np.sort(corners, 1)
    seen = corners.clip(0, (width, height))
    share = np.prod(seen[:, 1] - seen[:, 0], 1) / np.prod(corners[:, 1] - corners[:, 0], 1)
    boxes = torch.from_numpy(seen[share > 0.4].reshape(-1, 4).astype(np.float32))
    size = [-(-side // STRIDE) for side in inputs.shape[1:]]
    return (inputs, *targets(boxes / cell_side(height, width), *size))


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
        output = model(cell_odds(probability))
        boxes, scores, valid = propose(output, height, width, CANDIDATES, CANDIDATES)
        found = boxes[valid]
        real = torch.from_numpy(scene.boxes(LEAST_AREA))
        hits = {column for _, column in match(overlaps(real, found)[0].numpy(), 0.5)}
        logits.append(torch.logit(scores[valid].double(), 1e-9).numpy())
        fits.append(np.array([i in hits for i in range(len(found))], np.int64))
    try:
        fitted = Calibration.fit_platt(np.concatenate(logits), np.concatenate(fits))
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
