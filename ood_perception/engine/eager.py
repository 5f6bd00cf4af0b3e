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
