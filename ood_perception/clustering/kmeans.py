# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
K-means as pure tensor functions: batched, static shapes, nothing leaves the device.

All take what :func:`clean` gives: `tokens` float32 (B, N, D), `weights` float32 (B, N), 0 or 1,
those of weight 0 being 0, and `squares` float32 (B, N), the tokens' squared lengths. `centers` are
float32 (B, K, D), `ids` int64 (B, N) the nearest center of each token, `distances` float32 (B, N)
the squared distance to it, and `counts` float32 (B, K) the tokens of each cluster.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MARGIN = 2e-3  # share of the sum of distances that a move has to save, so that ids rest

Data = tuple[Tensor, Tensor, Tensor]  # tokens, weights, squares
Clustered = tuple[Tensor, Tensor, Tensor, Tensor]  # ids, centers, counts, distances


def clean(tokens: Tensor) -> Data:
    """Make tokens float (B, N, D), which may hold NaN or infinity, finite: see the module."""
    tokens = tokens.float()
    # the square of the length tells whether all values, and the square itself, are finite
    squares = torch.linalg.vector_norm(tokens, dim=-1).square()
    finite = torch.isfinite(squares)
    if tokens.is_cuda or not bool(finite.all()):
        tokens = torch.where(finite[..., None], tokens, 0.0)
        squares = torch.where(finite, squares, 0.0)
    return tokens, finite.float(), squares


def assign(tokens: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Ids, and the squared distances without the token's own square: float32 (B, N)."""
    offset = centers.square().sum(-1)[:, None]
    partial = torch.baddbmm(offset, tokens, centers.transpose(1, 2), alpha=-2)
    nearest, ids = partial.min(-1)
    return ids, nearest


def sums(tokens: Tensor, weights: Tensor, ids: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Sum and count the tokens of each of K clusters: float32 (B, K, D) and (B, K)."""
    if tokens.is_cuda or not tokens.is_contiguous():
        # a matmul is fast there, and its sum has the same order every time
        one_hot = torch.zeros(*ids.shape, clusters, device=tokens.device)
        one_hot.scatter_(2, ids[..., None], weights[..., None])
        return torch.bmm(one_hot.transpose(1, 2), tokens), one_hot.sum(1)
    batch, _, width = tokens.shape
    rows = (ids + clusters * torch.arange(batch)[:, None]).flatten()
    total = torch.zeros(batch * clusters, width).index_add_(0, rows, tokens.flatten(0, 1))
    counts = torch.zeros(batch * clusters).index_add_(0, rows, weights.flatten())
    return total.view(batch, clusters, width), counts.view(batch, clusters)


def revive(
    centers: Tensor, counts: Tensor, tokens: Tensor, weights: Tensor, distances: Tensor
) -> Tensor:
    """Move clusters without a token to the tokens that are farthest from every center."""
    clusters, number = centers.shape[1], tokens.shape[1]
    dead = counts < 0.5
    if not tokens.is_cuda and not bool(dead.any()):
        return centers
    far = (distances * weights).topk(min(clusters, number), dim=1).indices
    # the r-th dead cluster takes the r-th farthest token
    rank = (dead.cumsum(1) - 1).clamp(0, far.shape[1] - 1)
    place = far.gather(1, rank)
    chosen = tokens.gather(1, place[..., None].expand(-1, -1, tokens.shape[2]))
    return torch.where(dead[..., None], chosen, centers)


def lloyd(data: Data, centers: Tensor, prior: Tensor, iterations: int) -> Clustered:
    """
    Lloyd steps that start from, and are held by, the last frame's centers.

    A center becomes (prior * old + sum of its tokens) / (prior + number of its tokens); the prior,
    float32 (B, K), is how many tokens each old center is worth. The distances that are returned
    are 0 where the weight is 0.
    """
    (tokens, weights, squares), old = data, centers
    ids, nearest = assign(tokens, centers)
    for _ in range(iterations):
        total, counts = sums(tokens, weights, ids, centers.shape[1])
        mass = prior + counts
        moved = (prior[..., None] * old + total) / mass.clamp_min(1e-6)[..., None]
        # a cluster that neither has a past nor a token stays where it is
        centers = torch.where(mass[..., None] > 1e-6, moved, centers)
        distances = (nearest + squares).clamp_min(0)
        centers = revive(centers, counts, tokens, weights, distances)
        ids, nearest = assign(tokens, centers)
    counts = torch.zeros_like(prior).scatter_add_(1, ids, weights)
    return ids, centers, counts, (nearest + squares).clamp_min(0) * weights


def mean_distance(distances: Tensor, weights: Tensor) -> Tensor:
    """Mean squared distance of the tokens that count: (B, N), (B, N) -> (B,)."""
    return distances.sum(1) / weights.sum(1).clamp_min(1)


def relocate(data: Data, centers: Tensor, ids: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """
    Merge the two clusters cheapest to merge and split the one that gains most, if it pays.

    What Lloyd steps cannot do: leave a local optimum in which one center serves two groups while
    two centers share another. After Kaukoranta, Franti & Nevalainen, "Iterative split-and-merge
    algorithm for VQ codebook generation", Optical Engineering 1998. Cost and gain are exact for
    the partition: Ward's n_i n_j / (n_i + n_j) * |m_i - m_j|^2. Returns the centers, and bool (B,)
    whether there was a move.
    """
    tokens, weights, squares = data
    batch, clusters, width = centers.shape
    rows = torch.arange(batch, device=tokens.device)
    total, counts = sums(tokens, weights, ids, clusters)
    means = torch.where(counts[..., None] > 0, total / counts.clamp_min(1)[..., None], centers)
    # each cluster's farthest token is the seed of its possible second half
    own = torch.zeros(*ids.shape, clusters, device=tokens.device)
    own.scatter_(2, ids[..., None], distances[..., None] + 1e-12)
    seeds = tokens.gather(1, own.argmax(1)[..., None].expand(-1, -1, width))
    offset = seeds.square().sum(-1)[:, None]
    to_seed = torch.baddbmm(offset, tokens, seeds.transpose(1, 2), alpha=-2)
    to_seed = to_seed.gather(2, ids[..., None])[..., 0] + squares
    half = weights * (to_seed < distances)
    half_total, half_counts = sums(tokens * half[..., None], half, ids, clusters)
    rest_counts = counts - half_counts
    half_means = half_total / half_counts.clamp_min(1)[..., None]
    rest_means = (total - half_total) / rest_counts.clamp_min(1)[..., None]
    gain = (half_means - rest_means).square().sum(-1)
    gain = gain * half_counts * rest_counts / counts.clamp_min(1)
    best, split = gain.max(1)
    cost = torch.cdist(means, means).square()
    pairs = (counts[:, :, None] + counts[:, None]).clamp_min(1)
    cost = cost * counts[:, :, None] * counts[:, None] / pairs
    barred = torch.eye(clusters, device=tokens.device, dtype=torch.bool)[None].repeat(batch, 1, 1)
    barred[rows, split], barred[rows, :, split] = True, True
    least, pair = cost.masked_fill(barred, torch.inf).flatten(1).min(1)
    first, second = pair // clusters, pair % clusters
    # the smaller of the two leaves, the larger keeps its id
    smaller = counts[rows, first] < counts[rows, second]
    kept, leaving = torch.where(smaller, second, first), torch.where(smaller, first, second)
    moved = centers.clone()
    both = counts[rows, kept] + counts[rows, leaving]
    joined = total[rows, kept] + total[rows, leaving]
    moved[rows, kept] = torch.where(
        both[:, None] > 0, joined / both.clamp_min(1)[:, None], means[rows, kept]
    )
    moved[rows, leaving] = half_means[rows, split]
    moved[rows, split] = rest_means[rows, split]
    pays = best - least > MARGIN * distances.sum(1)
    pays &= torch.isfinite(least)
    return torch.where(pays[:, None, None], moved, centers), pays


def plus_plus(
    tokens: Tensor, weights: Tensor, clusters: int, generator: torch.Generator
) -> Tensor:
    """
    Choose starting centers by greedy k-means++ (Arthur & Vassilvitskii, SODA 2007).

    Each center is the best of 2 + log K candidates that are drawn, by the host's generator, with
    probability proportional to the squared distance to the centers so far.
    """
    batch, number, width = tokens.shape
    trials = 2 + int(math.log(clusters))
    squares = tokens.square().sum(-1)
    # the same numbers for every row: a stream starts alike, whoever else is in the batch
    draws = torch.rand(clusters, 1, trials, generator=generator).to(tokens.device)
    draws = draws.expand(-1, batch, -1).double()
    rows = torch.arange(batch, device=tokens.device)
    closest = torch.full((batch, number), torch.inf, device=tokens.device)
    chosen = []
    for k in range(clusters):
        cumulative = (closest * weights if k else weights).double().cumsum(1)
        uniform = draws[k] if k else draws[0, :, :1]
        places = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        places = places.clamp_max(number - 1)
        candidates = tokens.gather(1, places[..., None].expand(-1, -1, width))
        offset = candidates.square().sum(-1)[..., None] + squares[:, None]
        distance = torch.baddbmm(offset, candidates, tokens.transpose(1, 2), alpha=-2)
        reached = torch.minimum(distance.clamp_min(0), closest[:, None])
        best = (reached * weights[:, None]).sum(-1).argmin(1)
        closest = reached[rows, best]
        chosen.append(candidates[rows, best])
    return torch.stack(chosen, 1)
