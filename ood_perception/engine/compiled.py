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

"""Compiled engine: torch.compile with static shapes; on a GPU replayed as a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ood_perception.engine.flat import Flat
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
