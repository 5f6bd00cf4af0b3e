# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Eager engine: the network as written, operator by operator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ood_perception.models.output import SegmentorOutput


class EagerEngine:
    """Run a segmentor in evaluation mode; half precision by autocast, on a GPU only."""

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        self._model = model.eval().to(device).to(memory_format=torch.channels_last)
        self._device = device.type
        self._precision = precision
        self._half = device.type == 'cuda' and precision != torch.float32

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """From float (B, 3, h, w) normalised images to the segmentor's output."""
        with torch.autocast(self._device, dtype=self._precision, enabled=self._half):
            return self._model(images)
