# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Eager engine: the network as written, operator by operator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ood_perception.engines.base import Shape
from ood_perception.models.output import SegmentorOutput


class EagerEngine:
    """
    Run a segmentor in evaluation mode; in half precision, by autocast, on a GPU only.

    Args:
        model: segmentor; moved to the device and laid out channels-last.
        device: where to run.
        precision: float32, float16 or bfloat16; a CPU computes in float32 whatever it says.
        features: False leaves them out of the output.
    """

    name = 'eager'
    rounded = False
    channels_last = True

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        self._model = model.eval().to(device).to(memory_format=torch.channels_last)
        self._device = device.type
        self._precision = precision
        self._features = features
        self._half = device.type == 'cuda' and precision != torch.float32

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """From float (B, 3, h, w) normalised images to the segmentor's output."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device, dtype=self._precision, enabled=self._half):
            output: SegmentorOutput = self._model(images)
        if not self._features:
            output.features = []
        return output

    def prepare(self, shape: Shape) -> None:
        """Nothing to prepare."""

    def shapes(self) -> None:
        """Every shape runs at once."""
        return
