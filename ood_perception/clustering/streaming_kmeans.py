# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Streaming K-means: clusters that live through a stream instead of being fitted to every frame.

Each frame starts from the centers of the last one and takes one to three Lloyd steps, with counts
that decay exponentially. A cluster without tokens moves to the farthest token; a scene cut starts
all clusters afresh. The same id means the same cluster through time.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ood_perception.clustering.kmeans import (
    Clustered,
    Data,
    assign,
    clean,
    lloyd,
    mean_distance,
    plus_plus,
    relocate,
)

SAMPLE = 1024  # tokens that k-means++ starts from
STARTS = 2  # number of starts, of which the best is kept
START_ITERATIONS = 12  # Lloyd steps after a start; later frames need few
START_MOVES = 12  # bound of the merge-and-split moves after a start; two Lloyd steps follow each
MOVE_EVERY = 8  # frames between tries to merge and split: a poor start would stay otherwise


@dataclass(slots=True)
class _State:
    """State of one stream: centers (K, D), counts (K,), usual mean distance (), age in frames."""

    centers: Tensor
    counts: Tensor
    usual: Tensor
    cut: Tensor | None = None  # whether the last frame was one; of a GPU it may be known late
    age: int = 0


class StreamingKMeans:
    """
    Cluster the tokens of one or many streams, frame by frame, on the tokens' device.

    Args:
        n_clusters: K.
        iterations: Lloyd steps a frame, 1 to 3.
        decay: share of the past counts that holds the centers, 0 = only this frame counts.
        cut_ratio: a frame whose mean distance exceeds this many times the usual one is a scene
            cut; 0 = never.
        max_streams: streams remembered; the one not seen for longest is forgotten first.
        seed: of the starts.

    Attributes:
        centers: float32 (B, K, D) of the streams of the last step, None before.

    Memory: max_streams * K * (D + 1) float32.
    """

    def __init__(
        self,
        n_clusters: int,
        iterations: int = 1,
        decay: float = 0.1,
        cut_ratio: float = 2.5,
        max_streams: int = 16,
        seed: int = 0,
    ) -> None:
        if n_clusters < 1:
            raise ValueError(f'n_clusters: expected 1 or more, got {n_clusters}')
        if iterations < 1:
            raise ValueError(f'iterations: expected 1 or more, got {iterations}')
        if not 0 <= decay < 1:
            raise ValueError(f'decay: expected 0 <= decay < 1, got {decay}')
        if max_streams < 1:
            raise ValueError(f'max_streams: expected 1 or more, got {max_streams}')
        self.n_clusters, self.iterations, self.decay = n_clusters, iterations, decay
        self.cut_ratio, self.max_streams, self.seed = cut_ratio, max_streams, seed
        self.centers: Tensor | None = None
        self._states: OrderedDict[str, _State] = OrderedDict()

    @torch.no_grad()
    def step(self, tokens: Tensor, streams: Sequence[str] | None = None) -> Tensor:
        """
        Take one frame of each stream: int64 (B, N) cluster ids 0..K-1.

        Args:
            tokens: float (B, N, D), any float dtype; tokens with NaN or infinity take no part but
                get an id.
            streams: name of each row, default '0', '1', ...; streams may come and go.

        Raises:
            ValueError: not (B, N, D), no tokens, or names that do not fit.
        """
        if tokens.ndim != 3 or 0 in tokens.shape:
            raise ValueError(f'tokens: expected (B, N, D), got {tuple(tokens.shape)}')
        names = list(streams) if streams is not None else [str(i) for i in range(len(tokens))]
        if len(names) != len(tokens) or len(set(names)) != len(names):
            raise ValueError(f'streams: expected {len(tokens)} different names, got {names}')
        data = values, weights, _ = clean(tokens)
        self._start(data, [i for i, name in enumerate(names) if self._is_new(name, values)], names)
        states = [self._states[name] for name in names]
        centers = torch.stack([state.centers for state in states])
        prior = self.decay * torch.stack([state.counts for state in states])
        usual = torch.stack([state.usual for state in states])
        ids, centers, counts, distances = lloyd(data, centers, prior, self.iterations)
        mean = mean_distance(distances, weights)
        after = centers
        if self.n_clusters > 2 and any((s.age + 1) % MOVE_EVERY == 0 for s in states):
            # felt from the next frame on
            after, _ = relocate(data, centers, ids, distances)
        cut = mean > self.cut_ratio * usual + 1e-6 if self.cut_ratio else None
        for i, (name, state) in enumerate(zip(names, states, strict=True)):
            state.centers, state.counts = after[i].clone(), prior[i] + counts[i]
            state.usual, state.age = torch.lerp(usual[i], mean[i], 0.1), state.age + 1
            if cut is not None:
                state.cut = _to_host(cut[i])
            self._states.move_to_end(name)
        while len(self._states) > max(self.max_streams, len(names)):
            self._states.popitem(last=False)
        self.centers = centers
        if cut is not None and not tokens.is_cuda:
            # on the host the cut is known at once, so this frame is clustered anew already
            again = [i for i in range(len(names)) if bool(cut[i])]
            if again:
                self._start(data, again, names)
                self.centers = centers.clone()
                for i in again:
                    self.centers[i] = self._states[names[i]].centers
                ids[again] = assign(values[again], self.centers[again])[0]
        return ids

    def age(self, stream: str) -> int:
        """Frames since a stream's clusters were started, 0 = none; ids mean the same since."""
        state = self._states.get(stream)
        return state.age if state is not None else 0

    def reset(self, stream: str | None = None) -> None:
        """Forget one stream, or all."""
        if stream is None:
            self._states.clear()
        else:
            self._states.pop(stream, None)

    def _is_new(self, name: str, tokens: Tensor) -> bool:
        state = self._states.get(name)
        if state is None or state.centers.shape[1] != tokens.shape[2]:
            return True
        was_cut = state.cut is not None and bool(state.cut)
        return was_cut or state.centers.device != tokens.device

    def _start(self, batch: Data, rows: list[int], names: Sequence[str]) -> None:
        """Start the streams of some rows with new centers that have converged on this frame."""
        if not rows:
            return
        tokens, weights, squares = (part[rows] for part in batch)
        data = tokens, weights, squares
        generator = torch.Generator().manual_seed(self.seed)
        take = torch.randperm(tokens.shape[1], generator=generator)[:SAMPLE]
        take = take.to(tokens.device)
        nothing = torch.zeros(len(tokens), self.n_clusters, device=tokens.device)

        def settle(centers: Tensor, iterations: int) -> Clustered:
            return lloyd(data, centers, nothing, iterations)

        starts = []
        for _ in range(STARTS):
            chosen = plus_plus(tokens[:, take], weights[:, take], self.n_clusters, generator)
            starts.append(settle(chosen, START_ITERATIONS))
        best = functools.reduce(lambda old, new: _better(new, old), starts)
        for _ in range(START_MOVES if self.n_clusters > 2 else 0):
            ids, centers, _, distances = best
            moved, pays = relocate(data, centers, ids, distances)
            if not tokens.is_cuda and not bool(pays.any()):
                break
            best = _better(settle(moved, 2), best)
        _, centers, counts, distances = best
        mean = mean_distance(distances, weights)
        for i, row in enumerate(rows):
            self._states[names[row]] = _State(centers[i], counts[i], mean[i])


def _better(new: Clustered, old: Clustered) -> Clustered:
    """Keep for each row the result of `lloyd` with the smaller sum of distances."""
    better = new[3].sum(1) < old[3].sum(1)
    best = (
        torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b)
        for a, b in zip(new, old, strict=True)
    )
    return tuple(best)  # type: ignore[return-value]


def _to_host(flag: Tensor) -> Tensor:
    """Copy a flag to the host without waiting for the copy."""
    if not flag.is_cuda:
        return flag
    host = torch.empty((), dtype=torch.bool, pin_memory=True)
    host.zero_()
    return host.copy_(flag, non_blocking=True)
