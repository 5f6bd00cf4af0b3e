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

"""Engines: how a network is run on the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ood_perception.engine.eager import eager
from ood_perception.models.output import SegmentorOutput

Engine = Callable[[Tensor], SegmentorOutput]
"""From float (B, 3, h, w) normalised images on the device to the segmentor's output."""

ENGINES: dict[str, Callable[[nn.Module, torch.device, torch.dtype], Engine]] = {
    'eager': eager,
}
"""One table of engines: ``factory(model, device, precision) -> Engine``."""


def create_engine(
    name: str, model: nn.Module, device: torch.device, precision: torch.dtype
) -> Engine:
    """
    Put a segmentor on the device behind an engine.

    Args:
        name: entry of `ENGINES` or 'auto'.
        model: segmentor, a module from images to SegmentorOutput.
        device: where to run.
        precision: float32, float16 or bfloat16; the CPU always computes in float32.

    Raises:
        ValueError: unknown engine.

    """
    if name == 'auto':
        name = 'eager'
    if name not in ENGINES:
        raise ValueError(f'engine: expected auto or one of {", ".join(ENGINES)}, got {name!r}')
    return ENGINES[name](model, device, precision)
