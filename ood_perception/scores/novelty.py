# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Novelty: distance of what is seen to what was seen while nothing was wrong.

No classes, no outliers, any backbone. While learning, features are kept in a bounded memory (see
`bank`). The score of a pixel is its distance to the nearest kept token.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.base import ScoreModule, Size, upsample
from ood_perception.scores.tokens import (
    TokenBank,
    as_tokens,
    feature_grid,
    mean_and_std,
    projection,
    shrunk,
)

SAMPLE = 512  # tokens of a batch that learning looks at

UNLIKE, STRANGE, WATCHED = 4.0, 0.5, 0.02
"""Standard deviations from which a token is unlike the memory; share of unlike tokens that a
picture has in the long run where its camera was moved; share of one picture in that run."""

LEAST_FRAMES = 5  # fewer frames are no picture of a site

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

    Attributes: see `LearningScore`.

    Memory: capacity * D float32; while it is thinned, capacity^2 float32 more.
    """

    needs_features = True
    learns = True
    judges_untaught = False
    seen: Tensor | None
    accepting: Tensor | None
    strange: Tensor

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
        self.learning, self.seen, self.accepting = False, None, None
        self.generator = torch.Generator().manual_seed(0)
        self.model = ''  # identity of the model whose features come, '' = not known
        self._width, self._matrix = 0, torch.zeros(0, 0)
        self.forget()
        if weights:
            self.load(weights)

    @property
    def size(self) -> int:
        """Number of tokens in the memory, 0 = nothing was learnt."""
        return len(self.memory)

    @property
    def frames(self) -> int:
        """Number of frames learnt."""
        return self.memory.frames

    @property
    def problem(self) -> str:
        """Why every score is 0, with the remedy; '' where the memory is in use."""
        if not self.size:
            return 'nothing normal was learnt yet; run `ood learn-normal` or call ~/learn_normal'
        return self._misfit(self.memory)

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
        if self.frames >= LEAST_FRAMES:
            return ''
        return (
            f'{self.frames} frames that show something were seen, it takes {LEAST_FRAMES} at '
            'least; is it dark?'
        )

    def identify(self, model: str) -> None:
        """Tell which model's features come. Raises ValueError: the memory is of another one."""
        _check_model(self.memory, model)
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
        self,
        output: SegmentorOutput,
        level: Tensor | None = None,
        known: Tensor | None = None,
        usual: bool = True,
    ) -> None:
        """
        Take a batch of normal frames into the memory, unless its features have another width.

        `level`, float32 (B, H, W), is another score, the most of which becomes known by token, and
        `known`, bool (B, H, W), tells which pixels are normal, None = all. Frames that are not
        `usual` do not count: only what they show becomes known.
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
        if not self.size:
            self.memory.model = self.model
        self.memory.add(tokens[taken], levels[taken], usual)
        self.memory.frames += len(grid) if usual else 0
        self.seen = level

    def forward(self, output: SegmentorOutput, size: Size, streams: Sequence[str] = ()) -> Tensor:
        """
        Score a batch: float32 (B, H, W), standard deviations above the usual distance.

        0 everywhere while nothing was learnt, and, logged once, where the features have another
        width than those of the memory.
        """
        self._watch(output)
        grid = self._grid(output)
        if not self._fits(grid.shape[1]) or not self.size:
            return grid.new_zeros(len(grid), *size)
        return upsample(self.compare(grid)[0][:, None], size)[:, 0]

    def compare(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """
        Novelty of tokens (B, D, h, w) and the level of the nearest kept one, float32 (B, h, w).

        The novelty is in standard deviations above the usual distance.
        """
        shape = (len(grid), *grid.shape[2:])
        self.memory.to(grid.device)
        distance, which = self.memory.nearest(as_tokens(grid).flatten(0, 1), self.neighbours)
        mean, std = mean_and_std(self.memory.moments)
        score = (distance.mean(1) - mean) / std
        unlike = (score > UNLIKE).float().mean()
        self.strange = torch.lerp(self.strange.to(unlike), unlike, WATCHED)
        return score.view(shape), self.memory.level[which[:, 0]].view(shape)

    def forget(self) -> None:
        """Forget all."""
        self.memory = TokenBank(self.capacity, self.stages, self.project)
        self.strange, self._warned = torch.zeros(()), False

    def save(self, path: str) -> None:
        """Write the memory as safetensors. Raises ValueError: nothing was learnt."""
        self.memory.save(path)

    def load(self, path: str) -> None:
        """
        Read a memory.

        ValueError: the file is damaged, or of another model, of other stages or options, or of
        another feature width than the frames so far; the present memory stays.
        """
        try:
            memory = TokenBank.read(path, self.capacity)
        except ValueError as error:
            raise ValueError(f'score novelty: {error}') from error
        kind, mine = (memory.stages, memory.project), (self.stages, self.project)
        if kind != mine:
            raise ValueError(
                f'score novelty: {path} was learnt with stages {kind[0]} and project: {kind[1]}, '
                f'this profile has {mine[0]} and {mine[1]}; learn anew, or use the profile it was '
                'learnt with'
            )
        _check_model(memory, self.model)
        if wrong := self._misfit(memory):
            raise ValueError(f'score novelty: {wrong}')
        self.forget()
        self.memory, self.learning = memory, False

    def reset(self, stream: str | None = None) -> None:
        """Keep the memory: it belongs to the site, not to one camera's past."""

    def _misfit(self, memory: TokenBank) -> str:
        """Why a memory does not fit the frames so far, with the remedy; '' = it does."""
        held = memory.bank.shape[1]
        if not self._width or held == self._width:
            return ''
        return (
            f'the memory holds {held} features, the model gives {self._width}; it was learnt with '
            'another model or other stages, learn anew'
        )

    def _watch(self, output: SegmentorOutput, level: Tensor | None = None) -> None:
        """Learn from a batch that is scored, where something is to be learnt from it."""
        accepting, self.accepting = self.accepting, None
        if accepting is not None:
            self.learn(output, level, accepting[None], usual=False)
        elif self.learning:
            self.learn(output, level)

    def _fits(self, width: int) -> bool:
        """Whether features of this width can be compared with the memory; log once if not."""
        self._width = width
        if not self.size or not self.problem:
            return True
        if not self._warned:
            self._warned = True
            log.warning('score novelty: every score is 0: %s', self.problem)
        return False

    def _grid(self, output: SegmentorOutput) -> Tensor:
        """Tokens float32 (B, D, h, w): features, projected."""
        grid = feature_grid(output, self.stages, self.max_tokens, 'novelty')
        if self.project and self.project < grid.shape[1]:
            if len(self._matrix) != grid.shape[1]:
                self._matrix = projection(grid.shape[1], self.project)
            self._matrix = self._matrix.to(grid.device)
            grid = torch.einsum('bdhw,dk->bkhw', grid, self._matrix)
        return grid


def _check_model(memory: TokenBank, model: str) -> None:
    """Raise ValueError where a memory was learnt with another model, if both are known."""
    if memory.model and model and memory.model != model:
        raise ValueError(
            f'score novelty: the state was learnt with the model {memory.model!r}, this one is '
            f'{model!r}; learn anew (`ood learn-normal`), or use the profile it was learnt with'
        )
