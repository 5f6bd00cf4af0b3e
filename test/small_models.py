# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Small real networks that several tests share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ood_perception.models.output import InputSpec, SegmentorOutput


class SmallSegmentor(nn.Module):
    """A real, small network with all that engines meet: BN, strides, resizing to another map."""

    spec = InputSpec()

    def __init__(self, ood: bool = True) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.coarse = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.head = nn.Conv2d(24, 5, 1)
        self.uem = nn.Conv2d(16, 2, 1) if ood else None
        generator = torch.Generator().manual_seed(0)
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
                if name.endswith('running_var'):
                    tensor.add_(1)

    def forward(self, images: torch.Tensor) -> SegmentorOutput:
        fine = self.fine(images)
        coarse = self.coarse(fine)
        up = F.interpolate(coarse, fine.shape[2:], mode='bilinear', align_corners=False)
        logits = self.head(torch.cat([fine, up], 1))
        ood = None if self.uem is None else self.uem(coarse)
        return SegmentorOutput([fine, coarse], logits, ood)
