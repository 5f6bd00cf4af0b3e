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

"""Sliding windows: where they lie, and the mean of what a network says about each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """
    First pixel of each window along one axis; the last window is flush with the border.

    The official UEM code drops that last window where (size - window) is a multiple of the
    stride, and so has none at all for size == window.

    >>> window_starts(558, 518, 140)
    [0, 40]
    >>> window_starts(658, 518, 140)
    [0, 140]
    """
    if window > size:
        raise ValueError(f'window: expected at most the image side of {size}, got {window}')
    return [*range(0, size - window, stride), size - window]


def mean_over_windows(
    images: Tensor,
    function: Callable[[Tensor], Tensor],
    window: Sequence[int],
    stride: Sequence[int],
    batch: int = 1,
) -> Tensor:
    """
    Average what `function` gives for each window over the pixels that windows share.

    Args:
        images: float (B, 3, H, W).
        function: float (N, 3, *window) -> float (N, C, *window).
        window: height and width in pixels, at most the image's.
        stride: pixels between windows, down and across.
        batch: windows of each image that go through `function` together.

    Returns:
        float (B, C, H, W).

    """
    count, _, height, width = images.shape
    corners = [
        (y, x)
        for y in window_starts(height, window[0], stride[0])
        for x in window_starts(width, window[1], stride[1])
    ]
    total: Tensor | None = None
    hits = images.new_zeros(height, width)
    for first in range(0, len(corners), batch):
        part = corners[first : first + batch]
        crops = [images[:, :, y : y + window[0], x : x + window[1]] for y, x in part]
        values = function(torch.cat(crops)).split(count)
        if total is None:
            total = values[0].new_zeros(count, values[0].shape[1], height, width)
        for (y, x), value in zip(part, values, strict=True):
            total[:, :, y : y + window[0], x : x + window[1]] += value
            hits[y : y + window[0], x : x + window[1]] += 1
    assert total is not None
    return total / hits
