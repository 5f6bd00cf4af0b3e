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

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ood_perception.models.output import SegmentorOutput


def eager(
    model: nn.Module, device: torch.device, precision: torch.dtype
) -> Callable[[Tensor], SegmentorOutput]:
    """Run `model` in evaluation mode on `device`; half precision by autocast, on a GPU only."""
    model = model.eval().to(device, memory_format=torch.channels_last)
    half = device.type == 'cuda' and precision != torch.float32

    def run(images: Tensor) -> SegmentorOutput:
        with torch.autocast(device.type, dtype=precision, enabled=half):
            return model(images)

    return run
