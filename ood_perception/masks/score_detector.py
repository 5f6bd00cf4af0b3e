# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The score detector: a small network that finds objects in the calibrated score map.

It sees only the log-odds of the calibrated probability, so it works with any score, and it is
small enough for CPUs. The network is U-shaped; its output at 8 pixels tells for each place how
likely it is the centre of an unknown object and how far away the object's sides are (after
CenterNet, arXiv 1904.07850, and FCOS, arXiv 1904.01355).
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.checkpoints.loading import load_exactly
from ood_perception.masks.boxes import Boxes, clean_boxes, empty_boxes, suppress, waits
from ood_perception.masks.layers import SmallNetwork, conv_bn_relu, fuse_conv_bn, log_odds

CELL = 4
"""Pixels of the score map that make one cell of the network's input (at 480x360)."""
FLOOR = 0.065
"""Probability of the network alone below which a box is none."""
STRIDE = 2
"""Cells between two places of the network's output."""
IOU, CONTAINMENT = 0.5, 0.8
"""Of two boxes that overlap or hold each other more than this, the better one stays."""
WEIGHTS = 'package:light_prompts.safetensors'


class ScoreDetector(SmallNetwork):
    """
    The network: (B, 2, h, w) log-odds of `cell_odds` -> (B, 5, h / 2, w / 2).

    Channel 0 is the logit of an object's centre; channels 1-4 are the distances to the left, top,
    right and bottom side in cells, positive.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width, 4 * width]
        self.stem = conv_bn_relu(2, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(conv_bn_relu(a, b, 2), conv_bn_relu(b, b))
            for a, b in itertools.pairwise(widths)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(c, widths[1], 1) for c in widths[1:])
        self.smooth = conv_bn_relu(widths[1], widths[1])
        self.head = nn.Conv2d(widths[1], 5, 1)
        assert self.head.bias is not None
        # A centre is rare: start from a probability of 2 %, as focal losses want it.
        self.head.bias.data = torch.tensor([-4.0, 0.0, 0.0, 0.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        """Run the network; see the class."""
        x = self.stem(x)
        levels = []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        top = self.lateral[-1](levels[-1])
        for lateral, level in zip(self.lateral[-2::-1], levels[-2::-1], strict=True):
            top = lateral(level) + F.interpolate(top, level.shape[2:], mode='nearest')
        out = self.head(self.smooth(top))
        return torch.cat([out[:, :1], F.softplus(out[:, 1:]) * 4], 1)


def cell_side(height: int, width: int) -> int:
    """Pixels of a cell for a frame of (height, width): it grows, so the work does not."""
    return round(CELL * max(1.0, min(height, width) / 360))


def cell_odds(probability: Tensor) -> Tensor:
    """
    Input of the network from a probability map.

    Args:
        probability: float32 (B, H, W), 0..1; NaN counts as 0.

    Returns:
        float32 (B, 2, ceil(H / cell), ceil(W / cell)): mean and maximum over each cell of
        log(p / (1 - p)) / 4, within -2..2. The cell is that of `cell_side`; incomplete ones at
        the right and bottom count as whole ones.

    """
    cell = cell_side(*probability.shape[1:])
    odds = log_odds(probability)[:, None]
    mean = F.avg_pool2d(odds, cell, cell, ceil_mode=True)
    peak = F.max_pool2d(odds, cell, cell, ceil_mode=True)
    return torch.cat([mean, peak], 1)


def decode(output: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """
    Read boxes off the network's output.

    Args:
        output: float32 (B, 5, h, w) of `ScoreDetector`.
        limit: most boxes of each frame.

    Returns:
        boxes float32 (B, M, 4) XYXY in cells and scores (B, M), 0..1, best first; M = min(limit,
        h * w). A place that is no local maximum of the scores (3x3) scores 0.

    """
    heat = output[:, :1].sigmoid()
    peaks = torch.where(heat == F.max_pool2d(heat, 3, 1, 1), heat, 0.0)
    height, width = heat.shape[2:]
    scores, place = peaks.flatten(1).topk(min(limit, height * width), dim=1)
    sides = output[:, 1:].flatten(2).gather(2, place[:, None].expand(-1, 4, -1))
    x = (place % width).float() * STRIDE + STRIDE / 2
    y = (place // width).float() * STRIDE + STRIDE / 2
    left, top, right, bottom = sides.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], -1), scores


def propose(
    output: Tensor, height: int, width: int, slots: int, limit: int, threshold: float = 0.0
) -> Boxes:
    """
    Boxes of a frame from the network's output, without those that overlap a better one.

    Args:
        output: float32 (B, 5, h, w) of `ScoreDetector` on `cell_odds`.
        height: of the frame in pixels.
        width: of the frame in pixels.
        slots: K, boxes kept of each frame; their scores are the network's.
        limit: most boxes of each frame that are looked at.
        threshold: boxes that score less are dropped.

    """
    boxes, scores = decode(output, limit)
    boxes, valid = clean_boxes(boxes * cell_side(height, width), height, width)
    scores = torch.where(valid & (scores >= threshold), scores, 0.0)
    return suppress(boxes, scores, slots, IOU, CONTAINMENT)


def largest_inside(odds: Tensor, boxes: Tensor) -> Tensor:
    """
    Largest probability in each box.

    Args:
        odds: float32 (B, 2, h, w) of `cell_odds`.
        boxes: float32 (B, K, 4) XYXY in cells; a cell counts where the box covers any of it.

    Returns:
        float32 (B, K), 0..1; 0 for a box without a cell.

    """
    x1, y1, x2, y2 = boxes[..., None].unbind(2)
    y = torch.arange(odds.shape[2], device=odds.device)
    x = torch.arange(odds.shape[3], device=odds.device)
    rows = (y >= y1.floor()) & (y < y2)
    columns = (x >= x1.floor()) & (x < x2)
    inside = rows[..., :, None] & columns[..., None, :]
    # The odds are a quarter of the logit, see `layers.log_odds`.
    return torch.where(inside, odds[:, 1:], -torch.inf).flatten(2).amax(2).mul(4).sigmoid()


class ScoreDetectorPrompts(nn.Module):
    """
    Boxes of `ScoreDetector`, see `base.PromptModel`; reads the probability only.

    A box's confidence is 1 - (1 - network) (1 - peak): the network knows what objects look like in
    the map, and the largest probability in the box tells how strange the thing itself is.

    Args:
        weights: '' for a random network, ``package:FILE``, or a path of a safetensors file.
        slots: K, most boxes of each frame.
        threshold: boxes of a lower confidence 0..1 are dropped.
        seed: a frame whose map stays below this probability 0..1 has no boxes.

    Raises:
        OSError: there is no such weight file.
        ValueError: an option out of its range, or weights that do not fit.

    """

    def __init__(
        self,
        weights: str = WEIGHTS,
        slots: int = 16,
        threshold: float = 0.6,
        seed: float = 0.3,
    ) -> None:
        super().__init__()
        if slots < 1:
            raise ValueError(f'slots: expected at least 1, got {slots}')
        for name, value in (('threshold', threshold), ('seed', seed)):
            if not 0 <= value <= 1:
                raise ValueError(f'{name}: expected 0..1, got {value}')
        self.slots, self.threshold, self.seed = slots, threshold, seed
        network = ScoreDetector()
        if weights:
            load_exactly(network, weights)
        self.network = fuse_conv_bn(network)
        self.eval()

    @torch.no_grad()
    def forward(self, score: Tensor, probability: Tensor) -> Boxes:
        """Propose boxes; see `base.PromptModel`."""
        if not waits(probability) and not bool(probability.amax() >= self.seed):
            # Saves the host the network; `propose` drops all boxes by the same rule.
            return empty_boxes(len(probability), self.slots)
        return self.propose(probability)

    @torch.no_grad()
    def propose(self, probability: Tensor) -> Boxes:
        """Run the network on float32 (B, H, W), also where no frame reaches the seed."""
        height, width = probability.shape[1:]
        odds = cell_odds(probability).contiguous(memory_format=torch.channels_last)
        floor = min(FLOOR, self.threshold)
        found = propose(self.network(odds), height, width, self.slots, 4 * self.slots, floor)
        peak = largest_inside(odds, found.boxes / cell_side(height, width))
        valid = found.valid & (probability.amax((1, 2)) >= self.seed)[:, None]
        either = 1 - (1 - found.confidences) * (1 - peak)
        valid &= either >= self.threshold
        confidences, order = (either * valid).sort(dim=1, descending=True, stable=True)
        valid = valid.gather(1, order)
        boxes = found.boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return Boxes(torch.where(valid[..., None], boxes, 0.0), confidences, valid)
