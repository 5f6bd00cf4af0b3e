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
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ood_perception.checkpoints.tensors import read_tensors
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.base import ScoreModule, upsample
from ood_perception.scores.identity import check_model, check_width
from ood_perception.scores.tokens import as_tokens, feature_grid

GROWTH = 1.25
"""Factor of the radius whenever the memory is full."""

SAMPLE = 512
"""Tokens of a batch that learning looks at."""

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

    Attributes:
        bank: float32 (size, D), the tokens kept, None before anything was learnt.
        model: identity of the model whose features come, '' = not known.
        made_with: identity of the model the memory was learnt with, '' = not known.
        learning: whether it learns from every frame that it scores.

    Memory: capacity * D float32; while it is thinned, capacity^2 float32 more.

    """

    needs_features = True
    learns = True

    def __init__(
        self,
        capacity: int = 2048,
        stages: Sequence[int] = (-2,),
        max_tokens: int = 4096,
        neighbours: int = 1,
        weights: str = '',
    ) -> None:
        super().__init__()
        if capacity < 2 or neighbours < 1:
            raise ValueError(f'capacity, neighbours: got {capacity}, {neighbours}')
        self.capacity, self.stages, self.max_tokens = capacity, list(stages), max_tokens
        self.neighbours = neighbours
        self.learning = False
        self.generator = torch.Generator().manual_seed(0)
        self.bank: Tensor | None = None
        self.radius = 0.0
        self.moments = torch.zeros(3, dtype=torch.float64)
        self.model = self.made_with = ''
        self._width, self._warned = 0, False
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
        self._forget()
        self.learning = True

    def stop(self) -> None:
        """Stop learning; from now on scores are standardised by the distances met so far."""
        self.learning = False

    @torch.no_grad()
    def learn(self, output: SegmentorOutput) -> None:
        """
        Take a batch of normal frames into the memory.

        Features of another width than those kept are left out, which is logged once.
        """
        tokens = as_tokens(self._grid(output)).flatten(0, 1)
        if not self._fits(tokens.shape[1]):
            return
        # a sample bounds the time of a frame; a site is watched for many frames
        order = torch.randperm(len(tokens), generator=self.generator)[:SAMPLE]
        tokens = tokens[order.to(tokens.device)]
        if self.bank is None:
            self.bank, self.made_with = tokens[:1].clone(), self.model
            spread = torch.cdist(tokens, tokens.mean(0, keepdim=True)).mean()
            self.radius = float(0.25 * spread.clamp_min(1e-4))
        self.bank = self.bank.to(tokens.device)
        distance = nearest(tokens, self.bank, 1)
        self.moments += torch.tensor(
            [len(distance), float(distance.sum()), float(distance.square().sum())],
            dtype=torch.float64,
        )
        # farthest first, on the host: a few hundred numbers, and each choice hangs on the last
        between = torch.cdist(tokens, tokens).cpu().numpy()
        left = distance.cpu().numpy()
        chosen: list[int] = []
        while left[farthest := int(left.argmax())] > self.radius:
            if len(self.bank) + len(chosen) >= self.capacity:
                self.radius *= GROWTH
                self.bank = thin(torch.cat([self.bank, tokens[chosen]]), self.radius)
                left, chosen = nearest(tokens, self.bank, 1).cpu().numpy(), []
                continue
            chosen.append(farthest)
            left = np.minimum(left, between[farthest])
        if chosen:
            self.bank = torch.cat([self.bank, tokens[chosen]])

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
        self.bank = self.bank.to(grid.device)
        distance = nearest(as_tokens(grid).flatten(0, 1), self.bank, self.neighbours)
        mean, std = self.usual
        score = ((distance - mean) / std).view(len(grid), 1, *grid.shape[2:])
        return upsample(score, size)[:, 0]

    @property
    def usual(self) -> tuple[float, float]:
        """Mean and standard deviation of the distances met while learning."""
        count, total, squares = self.moments.tolist()
        mean = total / max(count, 1)
        return mean, max(squares / max(count, 1) - mean**2, 1e-8) ** 0.5

    def save(self, path: str) -> None:
        """
        Write the memory as safetensors.

        Raises:
            ValueError: nothing was learnt.

        """
        from safetensors.torch import save_file

        if self.bank is None:
            raise ValueError('score novelty: nothing was learnt yet')
        save_file(
            {
                'bank': self.bank.cpu().contiguous(),
                'moments': self.moments,
                'radius': torch.tensor(self.radius),
                'stages': torch.tensor(self.stages),
            },
            str(path),
            metadata={'model': self.made_with},
        )

    def load(self, path: str) -> None:
        """
        Read a memory.

        Raises:
            OSError: there is no such file.
            ValueError: the file is damaged, or of another model, of other stages, or of another
                feature width than the frames so far; the present memory stays.

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
        made_with = metadata.get('model', '')
        check_model('novelty', made_with, self.model)
        check_width('novelty', state['bank'].shape[1], self._width)
        self.made_with, self._warned = made_with, False
        self.bank, self.moments = state['bank'].float(), state['moments'].double()
        self.radius, self.learning = float(state['radius']), False

    def reset(self, stream: str | None = None) -> None:
        """Keep the memory: it belongs to the site, not to one camera's past."""

    def _fits(self, width: int) -> bool:
        """Whether features of this width can be compared with the memory; log once if not."""
        self._width = width
        if self.bank is None or self.bank.shape[1] == width:
            return True
        if not self._warned:
            self._warned = True
            log.warning('score novelty: every score is 0: %s', self.problem)
        return False

    def _forget(self) -> None:
        self.bank, self.radius = None, 0.0
        self.made_with, self._warned = '', False
        self.moments = torch.zeros(3, dtype=torch.float64)

    def _grid(self, output: SegmentorOutput) -> Tensor:
        return feature_grid(output, self.stages, self.max_tokens, 'novelty')


def nearest(tokens: Tensor, bank: Tensor, neighbours: int) -> Tensor:
    """Mean distance of (N, D) tokens to their nearest tokens of the (M, D) bank: (N,)."""
    squared = torch.addmm(bank.square().sum(1)[None], tokens, bank.T, alpha=-2)
    squared = squared + tokens.square().sum(1, keepdim=True)
    closest = squared.topk(min(neighbours, len(bank)), largest=False, dim=1).values
    return closest.clamp_min(0).sqrt().mean(1)


def thin(bank: Tensor, radius: float) -> Tensor:
    """Keep tokens, oldest first, that are farther than `radius` from all kept before."""
    distance = torch.cdist(bank, bank)
    near = (distance <= radius).cpu().numpy()
    free = np.ones(len(bank), dtype=bool)
    kept = []
    for i in range(len(bank)):
        if free[i]:
            kept.append(i)
            free &= ~near[i]
    return bank[kept]


class KnnScore(NoveltyScore):
    """Mean distance to the k nearest tokens of a memory of known data (k-NN, default k = 5)."""

    def __init__(self, neighbours: int = 5, **options: object) -> None:
        super().__init__(neighbours=neighbours, **options)  # type: ignore[arg-type]
