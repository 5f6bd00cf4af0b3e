# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Backbone features as tokens, and a bounded memory of normal that everything seen lies near to.

Tokens are the chosen stages on one grid, each scaled to length 1. One enters the memory when it is
farther than a radius from everything kept; when the memory is full the radius grows and the memory
is thinned (the doubling algorithm of Charikar et al., SIAM J. Computing 2004). Each kept token
also holds the most that another score was where it was seen.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from ood_perception.checkpoints.loading import read_tensors
from ood_perception.frames.resize import resize
from ood_perception.models.output import SegmentorOutput

GROWTH = 1.1  # factor of the radius whenever the memory is full
FARTHEST = 15.0  # metres; what is farther, or gave no depth, is as far for a memory of places


def feature_grid(
    output: SegmentorOutput, stages: Sequence[int], max_tokens: int, score: str
) -> Tensor:
    """
    Bring the chosen feature maps to one grid: float32 (B, D, h, w), NaN and infinity being 0.

    The grid is that of the first of `stages`, which are indices into the features, pooled down to
    `max_tokens` where it is finer. Each stage's vector has length 1 / sqrt(number of stages). A
    stage that is not there is a ValueError that names the score.
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
        finer = x.shape[2] > grid[0] or x.shape[3] > grid[1]
        x = F.adaptive_avg_pool2d(x, grid) if finer else resize(x, grid)
        resized.append(F.normalize(x, dim=1) / math.sqrt(len(maps)))
    return torch.cat(resized, 1)


def as_tokens(grid: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, h * w, D), row by row."""
    return grid.flatten(2).transpose(1, 2)


def projection(width: int, to: int) -> Tensor:
    """Orthogonal random matrix float32 (width, to), the same for all robots; keeps lengths."""
    random = torch.randn(width, to, generator=torch.Generator().manual_seed(width))
    basis: Tensor = torch.linalg.qr(random)[0]
    return basis * math.sqrt(width / to)


def shrunk(maps: Tensor, grid: Tensor) -> Tensor:
    """Mean of (B, H, W) maps over each token of a grid (B, D, h, w): (B * h * w,)."""
    h, w = grid.shape[2:]
    return F.adaptive_avg_pool2d(maps[:, None], (h, w)).flatten()


def token_depths(depth: Tensor, grid: Tensor) -> Tensor:
    """
    Find how far the tokens of a grid (B, D, h, w) are: float32 (B, 1, h, w), log of metres.

    `depth` is float32 (B, H, W) in metres, NaN or infinity = not measured. Where that is most of a
    token it is at `FARTHEST`: on a site, what a sensor does not reach is learnt like the rest. A
    frame in which nothing was measured is NaN.
    """
    size = (grid.shape[2], grid.shape[3])
    measured = torch.isfinite(depth)
    near = measured & (depth < FARTHEST)
    inverse = torch.where(near, 1 / depth.clamp_min(0.1), 0.0)
    share = F.adaptive_avg_pool2d(near.float()[:, None], size)
    mean = F.adaptive_avg_pool2d(inverse[:, None], size) / share.clamp_min(1e-6)
    found = torch.where(share > 0.5, -mean.clamp_min(1 / FARTHEST).log(), math.log(FARTHEST))
    return found.masked_fill(~measured.any(2).any(1)[:, None, None, None], torch.nan)


def squared_distances(tokens: Tensor, bank: Tensor, depth: bool = False) -> Tensor:
    """
    Squared distances (N, M) of tokens (N, D) to others (M, D), rounding errors below 0 included.

    With `depth` the last number is one, which counts where both have it; NaN = it is not known.
    """
    a, b = (x[:, :-1] if depth else x for x in (tokens, bank))
    squared = torch.addmm(b.square().sum(1)[None], a, b.T, alpha=-2)
    squared.add_(a.square().sum(1, keepdim=True))
    if depth:  # known z^2 + known' z'^2 - 2 z z', where a z that is not known is 0
        z, other = (x[:, -1:].nan_to_num() for x in (tokens, bank))
        known, both = (x[:, -1:].isfinite().float() for x in (tokens, bank))
        left, right = (z.square(), known, -2 * z), (both, other.square(), other)
        squared.addmm_(torch.cat(left, 1), torch.cat(right, 1).T)
    return squared


class TokenBank:
    """
    Tokens of what was seen, `capacity` at most.

    They are made of the feature maps `stages` and went through a random projection to the width
    `project`, 0 = none. Then come their place, two numbers within +-`position`, and `depth` times
    the log of their metres; where the option is 0 they have none.
    """

    def __init__(
        self,
        capacity: int,
        stages: Sequence[int],
        project: int = 0,
        position: float = 0.0,
        depth: float = 0.0,
    ) -> None:
        self.capacity, self.stages = capacity, list(stages)
        self.project, self.position, self.depth = project, position, depth
        self.bank = torch.zeros(0, 0)  # float32 (size, D), the tokens kept
        self.level = torch.zeros(0)  # float32 (size,), the most that another score was there
        self.radius = 0.0  # tokens nearer than this to a kept one are not kept
        self.frames = 0  # that were learnt
        self.model = ''  # identity of the model whose features these are, '' = not known
        self.moments = torch.zeros(3, dtype=torch.float64)  # of the distances met
        self.flat = torch.zeros(3, dtype=torch.float64)  # of those without depth, where it counts
        self.levels = torch.zeros(3, dtype=torch.float64)  # moments of the other score

    def __len__(self) -> int:
        """Count the tokens kept."""
        return len(self.bank)

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self.bank, self.level = self.bank.to(device), self.level.to(device)

    def add(self, tokens: Tensor, levels: Tensor, usual: bool = True) -> None:
        """
        Take in tokens float32 (N, D), N > 0, with the other score there, float32 (N,).

        `usual` tells whether they count in `moments` and `levels`.
        """
        if not len(self):
            self.bank, self.level = tokens[:1].clone(), levels[:1].clone()
            spread = self._between(tokens, tokens.nanmean(0, keepdim=True)).mean()
            self.radius = float(0.25 * spread.clamp_min(1e-4))
        self.to(tokens.device)
        distance = self._meet(tokens, levels)
        if usual:
            self.moments += moments_of(distance)
            self.levels += moments_of(levels)
            if self.depth:
                hidden = tokens.new_full((len(tokens), 1), torch.nan)
                flat = self.nearest(torch.cat([tokens[:, :-1], hidden], 1))[0][:, 0]
                self.flat += moments_of(flat)
        # farthest first, on the host: a few hundred numbers, and each choice hangs on the last
        between = self._between(tokens, tokens).cpu().numpy()
        left = distance.cpu().numpy()
        chosen: list[int] = []
        while left[farthest := int(left.argmax())] > self.radius:
            if len(self) + len(chosen) >= self.capacity:
                self._keep(tokens[chosen], levels[chosen])
                self._thin()
                left, chosen = self.nearest(tokens)[0][:, 0].cpu().numpy(), []
                continue
            chosen.append(farthest)
            left = np.minimum(left, between[farthest])
        self._keep(tokens[chosen], levels[chosen])

    def nearest(self, tokens: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
        """Distances (N, count) of tokens (N, D) to the nearest kept ones, and which those are."""
        squared = squared_distances(tokens, self.bank, self.depth > 0)
        if count > 1:
            closest, which = squared.topk(min(count, len(self)), largest=False, dim=1)
        elif squared.device.type == 'cpu':  # numpy's is nine times as fast
            which = torch.from_numpy(squared.detach().numpy().argmin(1))[:, None]
            closest = squared.gather(1, which)
        else:
            closest, which = (x[:, None] for x in squared.min(1))
        return closest.clamp_min(0).sqrt(), which  # rounding may make some squares negative

    def placed(self, tokens: Tensor) -> Tensor:
        """Whether tokens (N, D) know all that this memory judges by: bool (N,)."""
        return tokens[:, -1].isfinite()

    def standardised(self, distances: Tensor, tokens: Tensor) -> Tensor:
        """Distances (N,) of tokens (N, D) in standard deviations above what is usual."""
        mean, std = mean_and_std(self.moments)
        if not self.depth:
            return (distances - mean) / std
        flat_mean, flat_std = mean_and_std(self.flat)
        placed = self.placed(tokens)
        return torch.where(placed, (distances - mean) / std, (distances - flat_mean) / flat_std)

    def merge(self, other: TokenBank) -> None:
        """Take in what another robot has seen. Raises ValueError: another model, other options."""
        mine, theirs = (
            (m.model, m.stages, m.project, m.position, m.depth, m.bank.shape[1])
            for m in (self, other)
        )
        if mine != theirs:
            names = 'model, stages, project, position, depth, width'
            raise ValueError(f'memories of two kinds ({names}): {mine}, {theirs}')
        self.radius = max(self.radius, other.radius)
        new = self._meet(other.bank, other.level) > self.radius
        self._keep(other.bank[new], other.level[new])
        while len(self) > self.capacity:
            self._thin()
        self.moments += other.moments
        self.flat += other.flat
        self.levels += other.levels
        self.frames += other.frames

    def save(self, path: str) -> None:
        """Write the memory as safetensors. Raises ValueError: nothing was learnt."""
        if not len(self):
            raise ValueError('nothing was learnt yet')
        # a power cut leaves the old memory or the new one, never half of one
        part = f'{path}.part'
        save_file(
            {
                'bank': self.bank.cpu().contiguous(),
                'level': self.level.cpu(),
                'moments': self.moments,
                'flat': self.flat,
                'levels': self.levels,
                'radius': torch.tensor(self.radius),
                'stages': torch.tensor(self.stages),
                'project': torch.tensor(self.project),
                'position': torch.tensor(self.position, dtype=torch.float64),
                'depth': torch.tensor(self.depth, dtype=torch.float64),
                'frames': torch.tensor(self.frames),
            },
            part,
            metadata={'model': self.model},
        )
        os.replace(part, path)

    @classmethod
    def read(cls, path: str, capacity: int) -> TokenBank:
        """Read what :meth:`save` wrote. Raises OSError, and ValueError for a damaged file."""
        state, metadata = read_tensors(str(path), ('bank', 'moments', 'radius', 'stages'))
        if state['bank'].ndim != 2 or not len(state['bank']):
            raise ValueError(f'{path} holds no tokens')
        options = (float(state.get(name, 0)) for name in ('project', 'position', 'depth'))
        project, position, depth = options
        memory = cls(capacity, state['stages'].tolist(), int(project), position, depth)
        memory.bank, memory.moments = state['bank'].float(), state['moments'].double()
        memory.level = state.get('level', torch.zeros(len(memory))).float()
        memory.levels = state.get('levels', memory.levels).double()
        memory.flat = state.get('flat', memory.flat).double()
        memory.radius, memory.frames = float(state['radius']), int(state.get('frames', 0))
        memory.model = metadata.get('model', '')
        return memory

    def _keep(self, tokens: Tensor, levels: Tensor) -> None:
        if len(tokens):
            self.bank = torch.cat([self.bank, tokens])
            self.level = torch.cat([self.level, levels])

    def _between(self, tokens: Tensor, others: Tensor) -> Tensor:
        return squared_distances(tokens, others, self.depth > 0).clamp_min(0).sqrt()

    def _meet(self, tokens: Tensor, levels: Tensor) -> Tensor:
        """Distance (N,) of tokens to the memory, which notes the level of what it meets again."""
        distance, which = (x[:, 0] for x in self.nearest(tokens))
        self.level = self.level.scatter_reduce(0, which, levels, 'amax')
        return distance

    def _thin(self) -> None:
        """Make room; what is dropped leaves its level to what is kept beside it."""
        self.radius *= GROWTH
        bank, level = self.bank, self.level
        kept = thin(self._between(bank, bank), self.radius)
        self.bank, self.level = bank[kept], level[kept]
        self._meet(bank, level)


def moments_of(values: Tensor) -> Tensor:
    """Count, sum and sum of squares: float64 (3,) on the host."""
    sums = [len(values), float(values.sum()), float(values.double().square().sum())]
    return torch.tensor(sums, dtype=torch.float64)


def mean_and_std(moments: Tensor) -> tuple[float, float]:
    """Mean and standard deviation from count, sum and sum of squares."""
    count, total, squares = moments.tolist()
    mean = total / max(count, 1)
    return mean, max(squares / max(count, 1) - mean**2, 1e-8) ** 0.5


def thin(distances: Tensor, radius: float) -> list[int]:
    """Rows of (N, N) to keep, oldest first, that are farther than `radius` from all before."""
    near = (distances <= radius).cpu().numpy()
    free = np.ones(len(near), dtype=bool)
    kept = []
    for i in range(len(near)):
        if free[i]:
            kept.append(i)
            free &= ~near[i]
    return kept
