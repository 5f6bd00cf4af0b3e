# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The compact mask model: outlines objects in crops around their boxes, without a download.

Each box is cut out of the frame with a margin and brought to a fixed size, together with the
log-odds of the calibrated probability; a small network (`mask_head.MaskHead`) outlines the object
in it. What the crop does not reach is background.
"""

from __future__ import annotations

import cv2
import torch
from torch import Tensor, nn

from ood_perception.checkpoints.loading import load_exactly
from ood_perception.host_cpu import has_bfloat16_tiles
from ood_perception.masks.boxes import clean_boxes, waits
from ood_perception.masks.crops import MARGIN, SIZE, Resampling, cut, log_odds, windows
from ood_perception.masks.mask_head import MaskHead
from ood_perception.models.int8 import shipped_ranges
from ood_perception.models.unet import fuse_conv_bn

OUTSIDE = -20.0
"""Logit of the pixels that a box's crop does not reach."""
WEIGHTS = 'package:mask_head.safetensors'


class CompactMaskModel(nn.Module):
    """
    Masks of boxes by the mask head, see `base.MaskModel`.

    Args:
        weights: '' for a random network, ``package:FILE``, or a path of a safetensors file.
        batch: most crops of each frame that go through the network together.

    Raises:
        OSError: there is no such weight file.
        ValueError: an option out of its range, or weights that do not fit.

    """

    def __init__(self, weights: str = WEIGHTS, batch: int = 16) -> None:
        super().__init__()
        if batch < 1:
            raise ValueError(f'batch: expected at least 1, got {batch}')
        head = MaskHead()
        if weights:
            load_exactly(head, weights)
        self.head, self.batch = fuse_conv_bn(head), batch
        self.head.ranges = shipped_ranges(weights)
        self._bfloat16 = has_bfloat16_tiles()
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor, probability: Tensor, boxes: Tensor) -> Tensor:
        """Outline the object in each box; see `base.MaskModel`."""
        height, width = probability.shape[1:]
        clipped, valid = clean_boxes(boxes, height, width)
        if waits(boxes.device):
            return self._everything(images, probability, clipped, valid)
        out = torch.full((*boxes.shape[:2], height, width), OUTSIDE)
        rows = [(int(b), int(k)) for b, k in valid.nonzero()]
        table = clipped.tolist()
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            places = [table[b][k] for b, k in part]
            crops = windows(places, height, width, MARGIN)
            pictures = [
                cut(images[b], probability[b], crop, box, SIZE)
                for (b, _), crop, box in zip(part, crops, places, strict=True)
            ]
            logits = self._outline(torch.stack(pictures))
            for (b, k), (x1, y1, x2, y2), logit in zip(part, crops, logits, strict=True):
                whole = cv2.resize(logit.numpy(), (x2 - x1, y2 - y1))
                out[b, k, y1:y2, x1:x2] = torch.from_numpy(whole)
        return out

    def _everything(
        self, images: Tensor, probability: Tensor, boxes: Tensor, valid: Tensor
    ) -> Tensor:
        """Do the same with products of matrices, for every slot, used or not."""
        batch, slots = boxes.shape[:2]
        height, width = probability.shape[1:]
        down, across = (
            Resampling(boxes[..., axis::2], length, SIZE)
            for axis, length in ((1, height), (0, width))
        )
        planes = torch.cat([images.float() / 64 - 2, log_odds(probability)[:, None]], 1)
        rows = torch.einsum('bksh,bchw->bkcsw', down.shrink, planes)
        pictures = rows @ across.shrink.mT[:, :, None]
        inside = down.inside[..., :, None] & across.inside[..., None, :]
        pictures = torch.cat([pictures, inside[:, :, None].float()], 2).flatten(0, 1)
        parts = [self._outline(part) for part in pictures.split(self.batch * batch)]
        small = torch.cat(parts).view(batch, slots, SIZE, SIZE)
        reached = (
            down.reached[..., :, None] & across.reached[..., None, :] & valid[..., None, None]
        )
        return torch.where(reached, down.grow @ small @ across.grow.mT, OUTSIDE)

    def _outline(self, pictures: Tensor) -> Tensor:
        """Outline the object in each crop (N, 5, size, size) of `crops.cut`: logits."""
        rounded = self._bfloat16 and pictures.device.type == 'cpu'
        with torch.autocast('cpu', torch.bfloat16, enabled=rounded):
            logits: Tensor = self.head(pictures).float()
        return logits
