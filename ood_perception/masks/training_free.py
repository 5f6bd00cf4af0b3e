# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Masks without any training: the score's own mask made to follow the picture.

Two classic ways, for comparison and for scores that the mask head was never trained on: a guided
filter (He et al., arXiv 1010.3002) and GrabCut (Rother et al., SIGGRAPH 2004) with the score as
prior.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.masks.compact_segmenter import CropSegmenter
from ood_perception.masks.mask_head import MARGIN


class GuidedSegmenter(CropSegmenter):
    """
    The probability in the crop, filtered along the picture's edges and cut at `level`.

    Args:
        size: side in pixels of the crops, a multiple of 16.
        margin: share of the box's sides added on every side of the crop.
        radius: of the filter, in pixels of the crop.
        level: probability 0..1 that separates object from rest.

    """

    def __init__(
        self, size: int = 96, margin: float = MARGIN, radius: int = 5, level: float = 0.4
    ) -> None:
        super().__init__(size, margin)
        self.radius, self.level = radius, level

    def outline(self, pictures: Tensor) -> Tensor:
        """Filter and cut; see `CropSegmenter.outline`."""
        guide = pictures[:, :3].mean(1, keepdim=True) / 4 + 0.5
        probability = torch.sigmoid(pictures[:, 3:4] * 4)
        smooth = guided_filter(guide, probability, self.radius)[:, 0]
        return torch.where(pictures[:, 4] > 0, (smooth - self.level) * 8, -8.0)


class GrabCutSegmenter(CropSegmenter):
    """
    GrabCut in the crop, seeded by the probability.

    Args:
        size: side in pixels of the crops, a multiple of 16.
        margin: share of the box's sides added on every side of the crop.
        iterations: of GrabCut.

    """

    def __init__(self, size: int = 96, margin: float = MARGIN, iterations: int = 2) -> None:
        super().__init__(size, margin)
        self.iterations = iterations

    def outline(self, pictures: Tensor) -> Tensor:
        """Run GrabCut crop by crop on the host; see `CropSegmenter.outline`."""
        masks = [self._cut_one(picture) for picture in pictures.cpu().numpy()]
        return torch.from_numpy(np.stack(masks)).to(pictures.device)

    def _cut_one(self, picture: np.ndarray) -> np.ndarray:
        image = ((picture[:3] + 2) * 64).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        p = 1 / (1 + np.exp(-4 * picture[3]))
        seeds: Any = np.full(p.shape, cv2.GC_PR_BGD, np.uint8)
        seeds[p > 0.35] = cv2.GC_PR_FGD
        seeds[p > 0.9] = cv2.GC_FGD
        seeds[(picture[4] == 0) | (p < 0.01)] = cv2.GC_BGD
        plain = np.where(p > 0.4, 4.0, -4.0).astype(np.float32)
        if not ((seeds & 1) == 1).any() or not ((seeds & 1) == 0).any():
            return plain
        behind: Any = np.zeros((1, 65))
        front: Any = np.zeros((1, 65))
        by_mask: Any = None
        try:
            cv2.grabCut(
                np.ascontiguousarray(image),
                seeds,
                by_mask,
                behind,
                front,
                self.iterations,
                cv2.GC_INIT_WITH_MASK,
            )
        except cv2.error:
            # Too few samples for its colour models: the score alone must do.
            return plain
        return np.where((seeds & 1) == 1, 4.0, -4.0).astype(np.float32)


def guided_filter(guide: Tensor, source: Tensor, radius: int, epsilon: float = 1e-3) -> Tensor:
    """
    Filter `source` so that its edges follow those of `guide` (local linear model).

    Args:
        guide: float32 (N, 1, h, w), 0..1.
        source: float32 (N, 1, h, w).
        radius: of the square windows, in pixels.
        epsilon: variance of the guide below which a window counts as flat.

    """

    def mean(x: Tensor) -> Tensor:
        side = 2 * radius + 1
        return F.avg_pool2d(x, side, 1, radius, count_include_pad=False)

    mean_guide, mean_source = mean(guide), mean(source)
    variance = mean(guide * guide) - mean_guide**2
    slope = (mean(guide * source) - mean_guide * mean_source) / (variance + epsilon)
    offset = mean_source - slope * mean_guide
    return mean(slope) * guide + mean(offset)
