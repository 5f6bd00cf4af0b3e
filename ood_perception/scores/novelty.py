# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Novelty memory: distance of what is seen to what was seen while nothing was wrong.

No classes, no outliers, any backbone. While learning, a coreset of features is kept in bounded
memory: a token enters when it is farther than a radius from everything kept; when the memory is
full the radius grows and the memory is thinned (the doubling algorithm of Charikar et al., SIAM J.
Computing 2004). The score of a pixel is its distance to the nearest kept token.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ood_perception.checkpoints.tensors import read_tensors
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.base import ScoreModule, upsample
from ood_perception.scores.coreset import (
    mean_and_std,
    moments_of,
    nearest,
    projection,
    shrunk,
    squared_distances,
    thin,
)
from ood_perception.scores.identity import check_model, check_width
from ood_perception.scores.tokens import as_tokens, feature_grid

GROWTH = 1.25
"""Factor of the radius whenever the memory is full."""

SAMPLE = 512
"""Tokens of a batch that learning looks at."""

UNLIKE, STRANGE, WATCHED = 4.0, 0.5, 0.02
"""Standard deviations from which a token is unlike the memory; share of unlike tokens that a
picture has in the long run where its camera was moved; share of one picture in that run."""

LEAST_FRAMES, LEAST_TOKENS = 5, 4
"""Fewer frames, or fewer kept tokens, are no picture of a site."""

log = logging.getLogger(__name__)


class NoveltyScore(ScoreModule):
    """
    Distance to a learnt memory of normal, in standard deviations of the normal distances.

    Args:
        capacity: most tokens kept.
        stages: feature maps, the first gives the grid.
        max_tokens: bound of the grid.
        neighbours: the score is the mean distance to so many nearest kept tokens.
        weights: file of :meth:`save`; '' starts with an empty memory, which scores 0.
        project: width to which a fixed random projection brings the features, 0 = all of them;
            64 keeps distances within some percent and costs a seventh at compact's 472.

    Attributes:
        bank: float32 (size, D), the tokens kept, None before anything was learnt.
        level: float32 (size,), the most that another score was there, see :meth:`learn`.
        frames: number of frames learnt.
        model: identity of the model whose features come, '' = not known.
        made_with: identity of the model the memory was learnt with, '' = not known.
        learning: whether it learns from every frame that it scores.

    Memory: capacity * D float32; while it is thinned, capacity^2 float32 more.

    """

    needs_features = True
    learns = True
    judges_untaught = False
    bank: Tensor | None
    level: Tensor
    strange: Tensor
    moments: Tensor
    levels: Tensor
    radius: float
    frames: int
    made_with: str
    _warned: bool

    def __init__(
        self,
        capacity: int = 2048,
        stages: Sequence[int] = (-2,),
        max_tokens: int = 4096,
        neighbours: int = 1,
        weights: str = '',
        project: int = 0,
    ) -> None:
        super().__init__()
        if capacity < 2 or neighbours < 1:
            raise ValueError(f'capacity, neighbours: got {capacity}, {neighbours}')
        if project < 0:
            raise ValueError(f'project: expected 0 or more, got {project}')
        self.capacity, self.stages, self.max_tokens = capacity, list(stages), max_tokens
        self.neighbours, self.project = neighbours, project
        self.learning = False
        self.generator = torch.Generator().manual_seed(0)
        self.model = ''
        self._width, self._matrix = 0, torch.zeros(0, 0)
        self.forget()
        if weights:
            self.load(weights)

    @property
    def size(self) -> int:
        """Number of tokens in the memory, 0 = nothing was learnt."""
        return 0 if self.bank is None else len(self.bank)

    @property
    def problem(self) -> str:
        """Why every score is 0, with the remedy; '' where the memory is in use."""
        if self.bank is None:
            return 'nothing normal was learnt yet; run `ood learn-normal` or call ~/learn_normal'
        if self._width and self.bank.shape[1] != self._width:
            return (
                f'the memory holds {self.bank.shape[1]} features, the model gives {self._width}; '
                'it was learnt with another model, learn anew'
            )
        return ''

    @property
    def doubt(self) -> str:
        """Why what the score says should be looked at, with the remedy; '' = nothing is odd."""
        strange = float(self.strange)
        if self.problem or strange < STRANGE:
            return ''
        return (
            f'{strange:.0%} of the picture is unlike all that was learnt; was the camera '
            'moved, or is this another place? learn here'
        )

    @property
    def poor(self) -> str:
        """Why what was learnt is too little to judge by; '' = it is enough."""
        if self.frames < LEAST_FRAMES:
            return f'{self.frames} frames were seen, it takes {LEAST_FRAMES} at least'
        if self.size < LEAST_TOKENS:
            return f'the frames show next to nothing ({self.size} kinds of places); is it dark?'
        return ''

    def identify(self, model: str) -> None:
        """
        Tell which model's features come, as `scores.identity.model_identity` names it.

        Raises:
            ValueError: the memory was learnt with another model.

        """
        check_model('novelty', self.made_with, model)
        self.model = model

    def start(self) -> None:
        """Forget everything and learn from every frame that is scored until :meth:`stop`."""
        self.forget()
        self.learning = True

    def stop(self) -> None:
        """Stop learning; from now on scores are standardised by the distances met so far."""
        self.learning = False

    @torch.no_grad()
    def learn(
        self, output: SegmentorOutput, level: Tensor | None = None, known: Tensor | None = None
    ) -> None:
        """
        Take a batch of normal frames into the memory.

        Features of another width than those kept are left out, which is logged once.

        Args:
            output: of the segmentor.
            level: float32 (B, H, W), another score; the most it was becomes known by token.
            known: bool (B, H, W), which pixels are normal; None = all.

        """
        grid = self._grid(output)
        tokens = as_tokens(grid).flatten(0, 1)
        if not self._fits(tokens.shape[1]):
            return
        levels = tokens.new_zeros(len(tokens)) if level is None else shrunk(level, grid)
        taken = torch.arange(len(tokens), device=tokens.device)
        if known is not None:
            taken = taken[shrunk(known.float(), grid) > 0.999]
        # a sample bounds the time of a frame; a site is watched for many frames
        order = torch.randperm(len(taken), generator=self.generator)[:SAMPLE]
        taken = taken[order.to(taken.device)]
        if not len(taken):
            return
        tokens, levels = tokens[taken], levels[taken]
        self.frames += len(grid)
        if self.bank is None:
            self.made_with = self.model
            self._keep(tokens[:1], levels[:1])
            spread = torch.cdist(tokens, tokens.mean(0, keepdim=True)).mean()
            self.radius = float(0.25 * spread.clamp_min(1e-4))
        self._move(tokens.device)
        distance = self._meet(tokens, levels)
        self.moments += moments_of(distance)
        self.levels += moments_of(levels)
        # farthest first, on the host: a few hundred numbers, and each choice hangs on the last
        between = torch.cdist(tokens, tokens).cpu().numpy()
        left = distance.cpu().numpy()
        chosen: list[int] = []
        while left[farthest := int(left.argmax())] > self.radius:
            if self.size + len(chosen) >= self.capacity:
                self._keep(tokens[chosen], levels[chosen])
                self._thin()
                left, chosen = nearest(tokens, self._bank, 1).cpu().numpy(), []
                continue
            chosen.append(farthest)
            left = np.minimum(left, between[farthest])
        self._keep(tokens[chosen], levels[chosen])

    def forward(
        self, output: SegmentorOutput, size: tuple[int, int], streams: Sequence[str] = ()
    ) -> Tensor:
        """
        Score a batch: float32 (B, H, W), standard deviations above the usual distance.

        0 everywhere while nothing was learnt, and, logged once, where the features have another
        width than those of the memory.
        """
        if self.learning:
            self.learn(output)
        grid = self._grid(output)
        if not self._fits(grid.shape[1]) or self.bank is None:
            return grid.new_zeros(len(grid), *size)
        return upsample(self.compare(grid)[0][:, None], size)[:, 0]

    def compare(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """
        Novelty of tokens (B, D, h, w), and the level of the nearest kept one.

        Returns:
            float32 (B, h, w) each: standard deviations above the usual distance, and `level`.

        """
        shape = (len(grid), *grid.shape[2:])
        self._move(grid.device)
        tokens = as_tokens(grid).flatten(0, 1)
        squared = squared_distances(tokens, self._bank)
        count = min(self.neighbours, self.size)
        closest, which = (x[:, None] for x in squared.min(1))
        if count > 1:
            closest, which = squared.topk(count, largest=False, dim=1)
        mean, std = self.usual
        score = (closest.clamp_min(0).sqrt().mean(1) - mean) / std
        unlike = (score > UNLIKE).float().mean()
        self.strange = torch.lerp(self.strange.to(unlike), unlike, WATCHED)
        return score.view(shape), self.level[which[:, 0]].view(shape)

    def _move(self, device: torch.device) -> None:
        """Move the memory to the device of the frames."""
        if self.bank is not None:
            self.bank, self.level = self.bank.to(device), self.level.to(device)
        self._matrix = self._matrix.to(device)

    def forget(self) -> None:
        """Forget all."""
        self.bank, self.level = None, torch.zeros(0)
        self.radius, self.strange, self.frames = 0.0, torch.zeros(()), 0
        self.made_with, self._warned = '', False
        self.moments = torch.zeros(3, dtype=torch.float64)
        self.levels = torch.zeros(3, dtype=torch.float64)

    @property
    def usual(self) -> tuple[float, float]:
        """Mean and standard deviation of the distances met while learning."""
        return mean_and_std(self.moments)

    def save(self, path: str) -> None:
        """
        Write the memory as safetensors.

        Raises:
            ValueError: nothing was learnt.

        """
        from safetensors.torch import save_file

        if self.bank is None:
            raise ValueError('score novelty: nothing was learnt yet')
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
            metadata={'model': self.made_with},
        )
        os.replace(part, path)

    def load(self, path: str) -> None:
        """
        Read a memory.

        Raises:
            OSError: there is no such file.
            ValueError: the file is damaged, or of another model, of other stages or options, or of
                another feature width than the frames so far; the present memory stays.

        """
        keys = ('bank', 'moments', 'radius', 'stages')
        try:
            state, metadata = read_tensors(str(path), keys)
        except ValueError as error:
            raise ValueError(f'score novelty: {error}') from error
        if state['stages'].tolist() != self.stages or state['bank'].ndim != 2:
            raise ValueError(
                f'score novelty: {path} was learnt on stages {state["stages"].tolist()}, '
                f'expected {self.stages}'
            )
        project = int(state.get('project', 0))
        if project != self.project:
            raise ValueError(
                f'score novelty: {path} was learnt with project: {project}, this profile has '
                f'{self.project}; learn anew, or use the profile it was learnt with'
            )
        made_with = metadata.get('model', '')
        check_model('novelty', made_with, self.model)
        check_width('novelty', state['bank'].shape[1], self._width)
        self.forget()
        self.made_with, self.learning = made_with, False
        self.bank, self.moments = state['bank'].float(), state['moments'].double()
        self.level = state.get('level', torch.zeros(self.size)).float()
        self.levels = state.get('levels', self.levels).double()
        self.radius, self.frames = float(state['radius']), int(state.get('frames', 0))

    def reset(self, stream: str | None = None) -> None:
        """Keep the memory: it belongs to the site, not to one camera's past."""

    def _fits(self, width: int) -> bool:
        """Whether features of this width can be compared with the memory; log once if not."""
        self._width = width
        if self.bank is None or not self.problem:
            return True
        if not self._warned:
            self._warned = True
            log.warning('score novelty: every score is 0: %s', self.problem)
        return False

    @property
    def _bank(self) -> Tensor:
        assert self.bank is not None
        return self.bank

    def _keep(self, tokens: Tensor, levels: Tensor) -> None:
        if self.bank is None:
            self.bank, self.level = tokens.clone(), levels.clone()
        elif len(tokens):
            self.bank = torch.cat([self.bank, tokens])
            self.level = torch.cat([self.level, levels])

    def _meet(self, tokens: Tensor, levels: Tensor) -> Tensor:
        """Distance (N,) of tokens to the memory, which notes the level of what it meets again."""
        squared, which = squared_distances(tokens, self._bank).min(1)
        self.level = self.level.scatter_reduce(0, which, levels, 'amax')
        return squared.clamp_min(0).sqrt()

    def _thin(self) -> None:
        """Make room; what is dropped leaves its level to what is kept beside it."""
        self.radius *= GROWTH
        bank, level = self._bank, self.level
        kept = thin(bank, self.radius)
        self.bank, self.level = bank[kept], level[kept]
        self._meet(bank, level)

    def _grid(self, output: SegmentorOutput) -> Tensor:
        """Tokens float32 (B, D, h, w): features, projected."""
        grid = feature_grid(output, self.stages, self.max_tokens, 'novelty')
        if self.project and self.project < grid.shape[1]:
            if len(self._matrix) != grid.shape[1]:
                self._matrix = projection(grid.shape[1], self.project).to(grid.device)
            grid = torch.einsum('bdhw,dk->bkhw', grid, self._matrix)
        return grid


class KnnScore(NoveltyScore):
    """Mean distance to the k nearest tokens of a memory of known data (k-NN, default k = 5)."""

    def __init__(self, neighbours: int = 5, **options: object) -> None:
        super().__init__(neighbours=neighbours, **options)  # type: ignore[arg-type]
