# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Sliding windows: where they lie, and the mean of what a network says about each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ood_perception.frames.resize import resize
from ood_perception.models.output import SegmentorOutput


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


GPU_BATCH = 4
"""Windows that go through a network together on a GPU, unless another number is asked for."""


def batch_for(device: torch.device) -> int:
    """
    Windows of each image that go through a network together where nobody chose a number.

    On a CPU one window fills the cores already, and more only leave the caches.
    """
    return 1 if device.type == 'cpu' else GPU_BATCH


def mean_over_windows(
    images: Tensor,
    function: Callable[[Tensor], Tensor],
    window: Sequence[int],
    stride: Sequence[int],
    batch: int | None = None,
) -> Tensor:
    """
    Average what `function` gives for each window over the pixels that windows share.

    Args:
        images: float (B, 3, H, W).
        function: float (N, 3, *window) -> float (N, C, *window).
        window: height and width in pixels, at most the image's.
        stride: pixels between windows, down and across.
        batch: windows of each image that go through `function` together, None = by the device.

    Returns:
        (B, C, H, W), float32 at least.
    """
    count, _, height, width = images.shape
    rows = window_starts(height, window[0], stride[0])
    columns = window_starts(width, window[1], stride[1])
    corners = [(y, x) for y in rows for x in columns]
    batch = batch_for(images.device) if batch is None else batch
    total: Tensor | None = None
    for first in range(0, len(corners), batch):
        part = corners[first : first + batch]
        crops = [images[:, :, y : y + window[0], x : x + window[1]] for y, x in part]
        values = function(crops[0] if len(crops) == 1 else torch.cat(crops))
        values = values.unflatten(0, (len(part), count)).unbind(0)
        if total is None:
            # never in half precision: dozens of windows are summed
            wide = torch.promote_types(values[0].dtype, torch.float32)
            total = values[0].new_zeros(count, values[0].shape[1], height, width, dtype=wide)
        for (y, x), value in zip(part, values, strict=True):
            total[:, :, y : y + window[0], x : x + window[1]] += value
    assert total is not None
    over_rows = _hits(height, window[0], rows, images.device)
    return total.div_(over_rows[:, None] * _hits(width, window[1], columns, images.device))


def logits_over_windows(
    segmentor: Callable[[Tensor], SegmentorOutput],
    images: Tensor,
    window: Sequence[int],
    stride: Sequence[int],
    batch: int | None = None,
) -> SegmentorOutput:
    """
    Average class and UEM logits, resized to the window, over :func:`mean_over_windows`.

    Args:
        segmentor: float (N, 3, *window) -> output with `logits` and `ood` of any size.
        images: see :func:`mean_over_windows`, as are the others.

    Returns:
        logits: (B, K, H, W); ood: (B, 2, H, W); no features.
    """

    def both(crops: Tensor) -> Tensor:
        out = segmentor(crops)
        assert out.logits is not None
        assert out.ood is not None
        return torch.cat([resize(out.logits, window), resize(out.ood, window)], dim=1)

    mean = mean_over_windows(images, both, window, stride, batch)
    return SegmentorOutput(logits=mean[:, :-2], ood=mean[:, -2:])


def _hits(size: int, window: int, starts: Sequence[int], device: torch.device) -> Tensor:
    """Count the windows over each pixel of one axis: float32 (size,)."""
    hits = torch.zeros(size, device=device)
    for start in starts:
        hits[start : start + window] += 1
    return hits
