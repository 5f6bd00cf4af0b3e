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

"""
The compact segmenter: masks for box prompts without a download.

Each box is cut out of the frame with a margin and brought to a fixed size, together with the
log-odds of the calibrated probability. The probability is then made to follow the edges of the
image by a guided filter (He et al., arXiv 1010.3002) and cut at one half.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.masks.boxes import clean_boxes

OUTSIDE = -20.0
"""Logit of the pixels that a box's crop does not reach."""


class CompactSegmenter(nn.Module):
    """
    Box-prompted masks from the image and the score map.

    Args:
        size: side in pixels of the square to which each crop is brought.
        margin: share of the box's sides added on every side of the crop.
        radius: of the guided filter, in pixels of the crop.
        level: probability 0..1 that separates object from rest.

    """

    def __init__(
        self, size: int = 64, margin: float = 0.2, radius: int = 4, level: float = 0.4
    ) -> None:
        super().__init__()
        if size < 8:
            raise ValueError(f'size: expected at least 8 pixels, got {size}')
        self.size, self.margin, self.radius, self.level = size, margin, radius, level
        self._image = torch.zeros(3, 1, 1)
        self._probability = torch.zeros(1, 1)

    def set_frame(self, image: Tensor, score: Tensor, probability: Tensor) -> None:
        """
        Take the frame whose objects are to be outlined.

        Args:
            image: uint8 (H, W, 3) RGB.
            score: float32 (H, W); not used, the calibrated probability is.
            probability: float32 (H, W), 0..1; NaN counts as 0.

        """
        self._image = image.permute(2, 0, 1)
        self._probability = torch.nan_to_num(probability.float(), nan=0.0).clamp(0, 1)

    @torch.no_grad()
    def masks(self, boxes: Tensor) -> Tensor:
        """
        Outline the object in each box of the frame that was set.

        Args:
            boxes: float (N, 4) XYXY pixels; outside, empty or NaN boxes give an empty mask.

        Returns:
            float32 (N, H, W) logits, > 0 = object.

        """
        height, width = self._probability.shape
        out = self._probability.new_full((len(boxes), height, width), OUTSIDE)
        boxes, some = clean_boxes(boxes, height, width)
        rows = some.nonzero()[:, 0].tolist()
        if not rows:
            return out
        crops = crop_windows(boxes[rows], height, width, self.margin)
        pictures = torch.stack([self._cut(crop) for crop in crops])
        logits = self._refine(pictures)
        for row, (x1, y1, x2, y2), logit in zip(rows, crops, logits, strict=True):
            out[row, y1:y2, x1:x2] = F.interpolate(
                logit[None, None], (y2 - y1, x2 - x1), mode='bilinear', align_corners=False
            )[0, 0]
        return out

    def _cut(self, crop: tuple[int, int, int, int]) -> Tensor:
        """Image (0..1) and probability in a window, (4, size, size)."""
        x1, y1, x2, y2 = crop
        window = torch.cat(
            [
                self._image[:, y1:y2, x1:x2].float() / 255,
                self._probability[None, y1:y2, x1:x2],
            ]
        )[None]
        size = (self.size, self.size)
        return F.interpolate(window, size, mode='bilinear', antialias=True)[0]

    def _refine(self, pictures: Tensor) -> Tensor:
        guide = pictures[:, :3].mean(1, keepdim=True)
        smooth = guided_filter(guide, pictures[:, 3:], self.radius)
        return ((smooth - self.level) * 8)[:, 0]


def crop_windows(
    boxes: Tensor, height: int, width: int, margin: float
) -> list[tuple[int, int, int, int]]:
    """
    Whole-pixel windows around boxes, at least 4 pixels wide and high, inside the frame.

    Args:
        boxes: float32 (N, 4) XYXY pixels, inside the frame and not empty.
        height: of the frame in pixels.
        width: of the frame in pixels.
        margin: share of the box's sides added on every side, at least 3 pixels.

    """
    windows = []
    for x1, y1, x2, y2 in boxes.tolist():
        dx, dy = max(3.0, margin * (x2 - x1)), max(3.0, margin * (y2 - y1))
        windows.append(
            (
                max(0, int(x1 - dx)),
                max(0, int(y1 - dy)),
                min(width, int(x2 + dx) + 1),
                min(height, int(y2 + dy) + 1),
            )
        )
    return windows


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
