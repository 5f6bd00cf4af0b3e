# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The compact segmenter: masks for box prompts without a download.

Each box is cut out of the frame with a margin and brought to a fixed size, together with the
log-odds of the calibrated probability; a small network (`mask_head.MaskHead`) outlines the object
in it. What leaves the crop is background.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.host_cpu import has_bfloat16_tiles
from ood_perception.masks.boxes import clean_boxes
from ood_perception.masks.light_prompts import load_package_weights
from ood_perception.masks.mask_head import MARGIN, SIZE, MaskHead, cut, folded, windows

OUTSIDE = -20.0
"""Logit of the pixels that a box's crop does not reach."""
WEIGHTS = 'package:mask_head.safetensors'


class CropSegmenter(nn.Module):
    """
    Base of segmenters that look at one crop a box.

    A subclass says in `outline` what the object in each crop is.

    Args:
        size: side in pixels of the square to which each crop is brought.
        margin: share of the box's sides added on every side of the crop.
        batch: crops refined together at most.

    Raises:
        ValueError: an option out of its range.

    """

    def __init__(self, size: int = SIZE, margin: float = MARGIN, batch: int = 16) -> None:
        super().__init__()
        if size < 16 or size % 16:
            raise ValueError(f'size: expected a multiple of 16 pixels, got {size}')
        if not 0 <= margin <= 2:
            raise ValueError(f'margin: expected 0..2, got {margin}')
        if batch < 1:
            raise ValueError(f'batch: expected at least 1, got {batch}')
        self.size, self.margin, self.batch = size, margin, batch
        self._image = torch.zeros(3, 1, 1, dtype=torch.uint8)
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
        self._probability = probability

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
        out = torch.full((len(boxes), height, width), OUTSIDE, device=boxes.device)
        clipped, some = clean_boxes(boxes, height, width)
        # The only transfer: where to cut is decided on the host.
        table = torch.cat([clipped, some[:, None].float()], 1).tolist()
        rows = [row for row, (*_, usable) in enumerate(table) if usable]
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            crops = windows([table[row][:4] for row in part], height, width, self.margin)
            pictures = torch.stack(
                [
                    cut(self._image, self._probability, crop, table[row][:4], self.size)
                    for crop, row in zip(crops, part, strict=True)
                ]
            )
            for row, (x1, y1, x2, y2), logit in zip(
                part, crops, self.outline(pictures), strict=True
            ):
                out[row, y1:y2, x1:x2] = F.interpolate(
                    logit[None, None], (y2 - y1, x2 - x1), mode='bilinear', align_corners=False
                )[0, 0]
        return out

    def outline(self, pictures: Tensor) -> Tensor:
        """
        Outline the object in each crop.

        Args:
            pictures: float32 (N, 5, size, size) of `mask_head.cut`.

        Returns:
            float32 (N, size, size) logits, > 0 = object.

        """
        raise NotImplementedError


class CompactSegmenter(CropSegmenter):
    """
    Box-prompted masks by the mask head.

    Args:
        weights: '' for a random network, ``package:FILE``, or a path of a safetensors file.
        batch: crops refined together at most.

    Raises:
        OSError: no such weight file.
        ValueError: an option out of its range, or weights that do not fit.

    """

    def __init__(self, weights: str = WEIGHTS, batch: int = 16) -> None:
        super().__init__(batch=batch)
        head = MaskHead()
        if weights:
            load_package_weights(head, weights)
        self.head = folded(head)
        self._bfloat16 = has_bfloat16_tiles()
        self.eval()

    def outline(self, pictures: Tensor) -> Tensor:
        """Run the mask head; see `CropSegmenter.outline`."""
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        rounded = self._bfloat16 and pictures.device.type == 'cpu'
        with torch.autocast('cpu', torch.bfloat16, enabled=rounded):
            return self.head(pictures).float()
