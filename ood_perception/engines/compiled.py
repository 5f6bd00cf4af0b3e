# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Compiled engine: torch.compile with static shapes; on a GPU replayed as a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ood_perception.engines.flat import Flat
from ood_perception.models.output import SegmentorOutput


class CompiledEngine:
    """
    Run a segmentor through torch.compile.

    The first call of each image shape compiles (seconds to minutes), so warm up at start.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        model = model.eval().to(device).to(memory_format=torch.channels_last)
        self._flat = Flat(model, features)
        self._device = device.type
        self._precision = precision
        self._half = device.type == 'cuda' and precision != torch.float32
        mode = 'reduce-overhead' if device.type == 'cuda' else 'default'
        self._compiled = torch.compile(self._flat, mode=mode, dynamic=False)

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """From float (B, 3, h, w) normalised images to the segmentor's output."""
        if self._flat.present is None:
            with torch.autocast(self._device, dtype=self._precision, enabled=self._half):
                self._flat(images)
        if self._device == 'cuda':
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self._device, dtype=self._precision, enabled=self._half):
            tensors = self._compiled(images)
        return self._flat.restore(tensors)
