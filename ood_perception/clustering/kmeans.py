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

"""
K-means as pure tensor functions: batched, static shapes, nothing leaves the device.

Tokens are (B, N, D), centers (B, K, D). Sums are float32 whatever the tokens' dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def clean(tokens: Tensor, cosine: bool) -> tuple[Tensor, Tensor]:
    """
    Make tokens finite.

    Args:
        tokens: float (B, N, D), may hold NaN or infinity.
        cosine: scale each token to length 1.

    Returns:
        float32 (B, N, D), and float32 (B, N) weights: 0 for tokens that were not finite.

    """
    tokens = tokens.float()
    # one number a token tells whether all of its values are finite
    finite = torch.isfinite(tokens.sum(-1))
    weights = finite.float()
    tokens = torch.where(finite[..., None], tokens, 0.0)
    if cosine:
        tokens = torch.nn.functional.normalize(tokens, dim=-1)
    return tokens, weights


def assign(tokens: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """
    Find the nearest center of each token.

    Args:
        tokens: float32 (B, N, D).
        centers: float32 (B, K, D).

    Returns:
        ids int64 (B, N), and squared distances to the nearest center without the token's own
        square: float32 (B, N).

    """
    offset = centers.square().sum(-1)[:, None]
    partial = torch.baddbmm(offset, tokens, centers.transpose(1, 2), alpha=-2)
    nearest, ids = partial.min(-1)
    return ids, nearest


def sums(tokens: Tensor, weights: Tensor, ids: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Sum and count the tokens of each cluster: float32 (B, K, D) and (B, K)."""
    one_hot = torch.zeros(*ids.shape, clusters, device=tokens.device)
    one_hot.scatter_(2, ids[..., None], weights[..., None])
    return torch.bmm(one_hot.transpose(1, 2), tokens), one_hot.sum(1)


def revive(
    centers: Tensor, counts: Tensor, tokens: Tensor, weights: Tensor, distances: Tensor
) -> Tensor:
    """
    Move clusters without a token to the tokens that are farthest from every center.

    Args:
        centers: float32 (B, K, D).
        counts: float32 (B, K), tokens of each cluster in this frame.
        tokens: float32 (B, N, D).
        weights: float32 (B, N).
        distances: float32 (B, N), squared distance of each token to its center.

    """
    clusters, number = centers.shape[1], tokens.shape[1]
    dead = counts < 0.5
    far = (distances * weights).topk(min(clusters, number), dim=1).indices
    # the r-th dead cluster takes the r-th farthest token
    rank = (dead.cumsum(1) - 1).clamp(0, far.shape[1] - 1)
    place = far.gather(1, rank)
    chosen = tokens.gather(1, place[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.where(dead[..., None], chosen, centers)


def lloyd(
    tokens: Tensor,
    weights: Tensor,
    centers: Tensor,
    prior: Tensor,
    iterations: int,
    cosine: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """
    Lloyd steps that start from, and are held by, the last frame's centers.

    A center becomes (prior * old + sum of its tokens) / (prior + number of its tokens).

    Args:
        tokens: float32 (B, N, D), from :func:`clean`.
        weights: float32 (B, N), from :func:`clean`.
        centers: float32 (B, K, D), of the last frame.
        prior: float32 (B, K), how many tokens each old center is worth.
        iterations: Lloyd steps, at least 1.
        cosine: keep centers at length 1.

    Returns:
        ids int64 (B, N) of the last assignment, the new centers, counts of this frame float32
        (B, K), mean squared distance float32 (B,).

    """
    old, squares = centers, tokens.square().sum(-1)
    ids, nearest = assign(tokens, centers)
    for _ in range(iterations):
        total, counts = sums(tokens, weights, ids, centers.shape[1])
        mass = prior + counts
        moved = (prior[..., None] * old + total) / mass.clamp_min(1e-6)[..., None]
        # a cluster that neither has a past nor a token stays where it is
        centers = torch.where(mass[..., None] > 1e-6, moved, centers)
        distances = (nearest + squares).clamp_min(0)
        centers = revive(centers, counts, tokens, weights, distances)
        if cosine:
            centers = torch.nn.functional.normalize(centers, dim=-1)
        ids, nearest = assign(tokens, centers)
    counts = torch.zeros_like(prior).scatter_add_(1, ids, weights)
    distances = (nearest + squares).clamp_min(0) * weights
    return ids, centers, counts, distances.sum(1) / weights.sum(1).clamp_min(1)


def plus_plus(
    tokens: Tensor, weights: Tensor, clusters: int, generator: torch.Generator
) -> Tensor:
    """
    Choose starting centers by greedy k-means++ (Arthur & Vassilvitskii, SODA 2007).

    Each center is the best of 2 + log K candidates that are drawn with probability proportional to
    the squared distance to the centers so far.

    Args:
        tokens: float32 (B, S, D), a sample.
        weights: float32 (B, S).
        clusters: K.
        generator: of random numbers, on the host.

    Returns:
        float32 (B, K, D); where there are fewer distinct tokens than K, some centers coincide.

    """
    batch, number, width = tokens.shape
    trials = 2 + int(math.log(clusters))
    squares = tokens.square().sum(-1)
    # the same numbers for every row: a stream starts alike, whoever else is in the batch
    draws = torch.rand(clusters, 1, trials, generator=generator).to(tokens.device)
    draws = draws.expand(-1, batch, -1)

    def draw(mass: Tensor, uniform: Tensor) -> Tensor:
        cumulative = mass.double().cumsum(1)
        places = torch.searchsorted(cumulative, uniform.double() * cumulative[:, -1:], right=True)
        return places.clamp_max(number - 1)

    first = draw(weights, draws[0, :, :1])
    closest = torch.full((batch, number), torch.inf, device=tokens.device)
    chosen = []
    for k in range(clusters):
        places = first if k == 0 else draw(closest * weights, draws[k])
        candidates = tokens.gather(1, places[..., None].expand(-1, -1, width))
        offset = candidates.square().sum(-1)[..., None] + squares[:, None]
        distance = torch.baddbmm(offset, candidates, tokens.transpose(1, 2), alpha=-2)
        reached = torch.minimum(distance.clamp_min(0), closest[:, None])
        best = (reached * weights[:, None]).sum(-1).argmin(1)
        rows = torch.arange(batch, device=tokens.device)
        closest = reached[rows, best]
        chosen.append(candidates[rows, best])
    return torch.stack(chosen, 1)
