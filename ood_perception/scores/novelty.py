# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Novelty: distance of what is seen to what was seen while nothing was wrong.

No classes, no outliers, any backbone. While learning, features are kept in a bounded memory (see
`bank`). The score of a pixel is its distance to the nearest kept token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor

from ood_perception.frames.resize import upsample
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.base import ScoreModule, Size
from ood_perception.scores.logits import LikelihoodRatio
from ood_perception.scores.tokens import (
    TokenBank,
    as_tokens,
    feature_grid,
    mean_and_std,
    projection,
    shrunk,
    token_depths,
)

DARK = 4.0
"""Standard deviation of the values 0..255 of pictures up to which they show nothing."""
SAMPLE = 512  # tokens of a batch that learning looks at

UNLIKE = 4.0  # standard deviations from which a token is unlike the memory
STRANGE = 0.5  # share of unlike tokens that pictures have where their camera was moved
WATCHED = 0.02  # share of one picture in the long run

LEAST_FRAMES = 5  # fewer frames are no picture of a site

FAMILIAR = 2.0  # standard deviations below which a token is familiar
USUAL = 3.0  # standard deviations above the mean from which the ratio is unusual on the site

log = logging.getLogger(__name__)


def learns(score: ScoreModule) -> TypeGuard[NoveltyScore]:
    """Whether a score learns what is normal on site."""
    return score.learns


@contextmanager
def paused(score: ScoreModule, useless: Callable[[], bool]) -> Iterator[None]:
    """Keep a score that learns from learning while this is entered, if the frames are useless."""
    if not (learns(score) and score.learning and useless()):
        yield
        return
    score.learning = False
    try:
        yield
    finally:
        score.learning = True


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
        position: how far the middle of the picture is from its border, where a token has length
            1: what is normal below need not be normal above. A soft prior; 0 = the place does
            not count. It pays where a camera sees the same places again.
        depth: weight of how far a token is, the log of metres, beside features of length 1; 0 =
            it does not count. Frames without depth are compared without it, and not learnt.

    Memory: capacity * D float32; while it is thinned, capacity^2 float32 more.
    """

    needs_features = True
    learns = True
    judges_untaught = False  # whether it judges by something else while nothing was learnt
    seen: Tensor | None  # float32 (B, H, W), the other score of the frames learnt last, if any
    accepting: Tensor | None  # bool (H, W), what is normal in the next frame though it looks odd
    strange: Tensor
    flat: Tensor  # share of the frames of late that came without depth, where it counts

    def __init__(
        self,
        capacity: int = 2048,
        stages: Sequence[int] = (-2,),
        max_tokens: int = 4096,
        neighbours: int = 1,
        weights: str = '',
        project: int = 0,
        position: float = 0.0,
        depth: float = 0.0,
    ) -> None:
        super().__init__()
        if capacity < 2 or neighbours < 1:
            raise ValueError(f'capacity, neighbours: got {capacity}, {neighbours}')
        if project < 0:
            raise ValueError(f'project: expected 0 or more, got {project}')
        if not 0 <= position <= 1:
            raise ValueError(f'position: expected 0..1, got {position}')
        if not 0 <= depth <= 4:
            raise ValueError(f'depth: expected 0..4, got {depth}')
        self.capacity, self.stages, self.max_tokens = capacity, list(stages), max_tokens
        self.neighbours, self.project, self.position = neighbours, project, position
        self.depth, self.needs_depth = depth, depth > 0  # and whether depth images are of use
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
        if self.problem:
            return ''
        if float(self.flat) > 0.5:
            return 'frames come without the depth that the memory judges by; set parameter depth'
        strange = float(self.strange)
        if strange < STRANGE:
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
            'least; is it dark?' + ' does depth come?' * self.needs_depth
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
        if usual:  # what does not know its depth would be like things at any
            taken = taken[self.memory.placed(tokens[taken])]
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
        tokens = as_tokens(grid).flatten(0, 1)
        distance, which = self.memory.nearest(tokens, self.neighbours)
        score = self.memory.standardised(distance.mean(1), tokens)
        unlike = (score > UNLIKE).float().mean()
        self.strange = torch.lerp(self.strange.to(unlike), unlike, WATCHED)
        if self.depth:
            flat = (~self.memory.placed(tokens)).float().mean()
            self.flat = torch.lerp(self.flat.to(flat), flat, WATCHED)
        return score.view(shape), self.memory.level[which[:, 0]].view(shape)

    def forget(self) -> None:
        """Forget all."""
        kind = self.stages, self.project, self.position, self.depth
        self.memory = TokenBank(self.capacity, *kind)
        self.strange, self.flat, self._warned = torch.zeros(()), torch.zeros(()), False

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
        kinds = [(m.stages, m.project, m.position, m.depth) for m in (memory, self)]
        if kinds[0] != kinds[1]:
            text = 'stages {}, project: {}, position: {:g}, depth: {:g}'
            theirs, mine = (text.format(*kind) for kind in kinds)
            raise ValueError(
                f'score novelty: {path} was learnt with {theirs}, this profile has {mine}; '
                'learn anew, or use the profile it was learnt with'
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
        """Tokens float32 (B, D, h, w): features, projected, their place and how far they are."""
        grid = feature_grid(output, self.stages, self.max_tokens, 'novelty')
        if self.project and self.project < grid.shape[1]:
            if len(self._matrix) != grid.shape[1]:
                self._matrix = projection(grid.shape[1], self.project)
            self._matrix = self._matrix.to(grid.device)
            grid = (self._matrix.T @ grid.flatten(2)).unflatten(2, grid.shape[2:])
        parts, reach = [grid], self.position
        if reach:
            sides = [torch.linspace(-reach, reach, n, device=grid.device) for n in grid.shape[2:]]
            place = torch.stack(torch.meshgrid(*sides, indexing='ij'))
            parts.append(place.expand(len(grid), -1, -1, -1))
        if self.depth:
            depth = grid.new_full((len(grid), 1, 1), torch.nan)
            depth = depth if output.depth is None else output.depth
            parts.append(self.depth * token_depths(depth, grid))
        return torch.cat(parts, 1)


class SiteScore(NoveltyScore):
    """
    The likelihood ratio, corrected by a memory of the site; the ratio alone until it is taught.

    The trained score knows what objects are, the memory what stands here every day. While it
    learns, each kept token also keeps the most that the ratio was there. What looks familiar is
    less unknown than the ratio says, and no longer unknown for being as high as it was then:

        s = r - weight spread max(2 - n, 0) - max(level - usual, 0) exp(-max(n, 0))

    with the ratio r, the novelty n in standard deviations, the level of the nearest token, and the
    usual level and spread of the ratio on the site (mean + 3 spread; standard deviation). The
    memory only lowers: being new alone is no alarm, a robot sees new walls every day.

    Args:
        weight: of what is familiar.
        exact: see `LikelihoodRatio`.
        options: of `NoveltyScore`.
    """

    judges_untaught = True

    def __init__(self, weight: float = 1.0, exact: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if weight < 0:
            raise ValueError(f'weight: expected 0 or more, got {weight}')
        self.weight = weight
        self.ratio = LikelihoodRatio(exact)

    def forward(self, output: SegmentorOutput, size: Size, streams: Sequence[str] = ()) -> Tensor:
        """Score a batch: float32 (B, H, W), in nats; see `ScoreModule`."""
        ratio: Tensor = self.ratio(output, size, streams)
        self._watch(output, ratio)
        grid = self._grid(output)
        if not self._fits(grid.shape[1]) or not self.size:
            return ratio
        novelty, level = self.compare(grid)
        mean, spread = mean_and_std(self.memory.levels)
        excess = (level - mean - USUAL * spread).clamp_min(0) * (-novelty.clamp_min(0)).exp()
        familiar = self.weight * spread * (FAMILIAR - novelty).clamp_min(0)
        return ratio - upsample((familiar + excess)[:, None], size)[:, 0]


def _check_model(memory: TokenBank, model: str) -> None:
    """Raise ValueError where a memory was learnt with another model, if both are known."""
    if memory.model and model and memory.model != model:
        raise ValueError(
            f'score novelty: the state was learnt with the model {memory.model!r}, this one is '
            f'{model!r}; learn anew (`ood learn-normal`), or use the profile it was learnt with'
        )
