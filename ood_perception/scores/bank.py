# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Memory of normal: a bounded set of tokens that everything seen lies near to.

A token enters when it is farther than a radius from everything kept; when the memory is full the
radius grows and the memory is thinned (the doubling algorithm of Charikar et al., SIAM J.
Computing 2004). Each kept token also holds the most that another score was where it was seen.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ood_perception.checkpoints.tensors import read_tensors
from ood_perception.scores.coreset import mean_and_std, moments_of, squared_distances, thin

GROWTH = 1.25
"""Factor of the radius whenever the memory is full."""


class TokenBank:
    """
    Tokens of what was seen.

    Args:
        capacity: most tokens kept.
        stages: feature maps that the tokens are made of.
        project: width of the random projection that they went through, 0 = none.

    Attributes:
        bank: float32 (size, D), the tokens kept; (0, 0) before anything was learnt.
        level: float32 (size,), the most that another score was there.
        radius: tokens nearer than this to a kept one are not kept.
        moments: of the distances met, see `coreset.moments_of`.
        levels: the same of the other score.
        frames: number of frames learnt.
        model: identity of the model whose features these are, '' = not known.
    """

    def __init__(self, capacity: int, stages: Sequence[int], project: int = 0) -> None:
        self.capacity, self.stages, self.project = capacity, list(stages), project
        self.bank, self.level = torch.zeros(0, 0), torch.zeros(0)
        self.radius, self.frames, self.model = 0.0, 0, ''
        self.moments = torch.zeros(3, dtype=torch.float64)
        self.levels = torch.zeros(3, dtype=torch.float64)

    def __len__(self) -> int:
        """Count the tokens kept."""
        return len(self.bank)

    @property
    def usual(self) -> tuple[float, float]:
        """Mean and standard deviation of the distances met while learning."""
        return mean_and_std(self.moments)

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        self.bank, self.level = self.bank.to(device), self.level.to(device)

    def add(self, tokens: Tensor, levels: Tensor, usual: bool = True) -> None:
        """
        Take in tokens.

        Args:
            tokens: float32 (N, D), N > 0.
            levels: float32 (N,), the other score there.
            usual: whether they count in `moments` and `levels`.
        """
        if not len(self):
            self.bank, self.level = tokens[:1].clone(), levels[:1].clone()
            spread = torch.cdist(tokens, tokens.mean(0, keepdim=True)).mean()
            self.radius = float(0.25 * spread.clamp_min(1e-4))
        self.to(tokens.device)
        distance = self._meet(tokens, levels)
        if usual:
            self.moments += moments_of(distance)
            self.levels += moments_of(levels)
        # farthest first, on the host: a few hundred numbers, and each choice hangs on the last
        between = torch.cdist(tokens, tokens).cpu().numpy()
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
        squared = squared_distances(tokens, self.bank)
        if count == 1:
            closest, which = (x[:, None] for x in squared.min(1))
        else:
            closest, which = squared.topk(min(count, len(self)), largest=False, dim=1)
        return closest.clamp_min(0).sqrt(), which

    def merge(self, other: TokenBank) -> None:
        """
        Take in what another robot has seen.

        Raises:
            ValueError: it was learnt with another model, other stages or another projection.
        """
        mine, theirs = ((m.model, m.stages, m.project, m.bank.shape[1]) for m in (self, other))
        if mine != theirs:
            raise ValueError(f'memories of two kinds (model, stages, project): {mine}, {theirs}')
        self.radius = max(self.radius, other.radius)
        new = self._meet(other.bank, other.level) > self.radius
        self._keep(other.bank[new], other.level[new])
        while len(self) > self.capacity:
            self._thin()
        self.moments += other.moments
        self.levels += other.levels
        self.frames += other.frames

    def save(self, path: str) -> None:
        """
        Write the memory as safetensors.

        Raises:
            ValueError: nothing was learnt.
        """
        if not len(self):
            raise ValueError('nothing was learnt yet')
        # a power cut leaves the old memory or the new one, never half of one
        part = f'{path}.part'
        save_file(
            {
                'bank': self.bank.cpu().contiguous(),
                'level': self.level.cpu(),
                'moments': self.moments,
                'levels': self.levels,
                'radius': torch.tensor(self.radius),
                'stages': torch.tensor(self.stages),
                'project': torch.tensor(self.project),
                'frames': torch.tensor(self.frames),
            },
            part,
            metadata={'model': self.model},
        )
        os.replace(part, path)

    @classmethod
    def read(cls, path: str, capacity: int) -> TokenBank:
        """
        Read what :meth:`save` wrote.

        Raises:
            OSError: there is no such file.
            ValueError: the file is damaged.
        """
        state, metadata = read_tensors(str(path), ('bank', 'moments', 'radius', 'stages'))
        if state['bank'].ndim != 2 or not len(state['bank']):
            raise ValueError(f'{path} holds no tokens')
        project = int(state.get('project', 0))
        memory = cls(capacity, state['stages'].tolist(), project)
        memory.bank, memory.moments = state['bank'].float(), state['moments'].double()
        memory.level = state.get('level', torch.zeros(len(memory))).float()
        memory.levels = state.get('levels', memory.levels).double()
        memory.radius, memory.frames = float(state['radius']), int(state.get('frames', 0))
        memory.model = metadata.get('model', '')
        return memory

    def _keep(self, tokens: Tensor, levels: Tensor) -> None:
        if len(tokens):
            self.bank = torch.cat([self.bank, tokens])
            self.level = torch.cat([self.level, levels])

    def _meet(self, tokens: Tensor, levels: Tensor) -> Tensor:
        """Distance (N,) of tokens to the memory, which notes the level of what it meets again."""
        distance, which = (x[:, 0] for x in self.nearest(tokens))
        self.level = self.level.scatter_reduce(0, which, levels, 'amax')
        return distance

    def _thin(self) -> None:
        """Make room; what is dropped leaves its level to what is kept beside it."""
        self.radius *= GROWTH
        bank, level = self.bank, self.level
        kept = thin(bank, self.radius)
        self.bank, self.level = bank[kept], level[kept]
        self._meet(bank, level)
