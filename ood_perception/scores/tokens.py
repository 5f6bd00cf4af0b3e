# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Backbone features as tokens: the chosen stages on one grid, each scaled to length 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.frames.resize import resize
from ood_perception.models.output import SegmentorOutput


def feature_grid(
    output: SegmentorOutput, stages: Sequence[int], max_tokens: int, score: str
) -> Tensor:
    """
    Bring the chosen feature maps to one grid.

    Args:
        output: of the segmentor, with `features`.
        stages: indices into `features`; negative ones count from the end.
        max_tokens: bound of h * w; a finer first stage is pooled down to it.
        score: name of the score, for the message of an error.

    Returns:
        float32 (B, D, h, w) on the grid of the first chosen stage; each stage's vector has length
        1 / sqrt(number of stages), NaN and infinity are 0.

    Raises:
        ValueError: no features, or a stage that does not exist.
    """
    count = len(output.features)
    if not count:
        raise ValueError(f'score {score}: the segmentor gives no features')
    wrong = [stage for stage in stages if not -count <= stage < count]
    if wrong or not stages:
        raise ValueError(f'score {score}: stages: expected some of 0..{count - 1}, got {stages}')
    maps = [torch.nan_to_num(output.features[stage].float(), 0.0, 0.0, 0.0) for stage in stages]
    h, w = maps[0].shape[2:]
    shrink = math.ceil(math.sqrt(h * w / max_tokens))
    grid = (math.ceil(h / shrink), math.ceil(w / shrink))
    resized = []
    for x in maps:
        if x.shape[2] > grid[0] or x.shape[3] > grid[1]:
            x = F.adaptive_avg_pool2d(x, grid)
        else:
            x = resize(x, grid)
        resized.append(F.normalize(x, dim=1) / math.sqrt(len(maps)))
    return torch.cat(resized, 1)


def as_tokens(grid: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, h * w, D), row by row."""
    return grid.flatten(2).transpose(1, 2)
