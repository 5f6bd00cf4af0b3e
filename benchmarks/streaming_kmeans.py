# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Streaming K-means against scikit-learn on a drifting stream of tokens, on this machine's CPU.

Each frame is clustered by (a) ours, warm, (b) scikit-learn k-means++ until it converges, (c)
scikit-learn from the last centers, 3 iterations. Prints inertia and time as ratios of one run
(medians over the frames; the mean also holds the frames that look for a merge-and-split move):

    python benchmarks/streaming_kmeans.py --output benchmarks/results/streaming_kmeans.csv
    python benchmarks/streaming_kmeans.py --long --output benchmarks/results/streaming_long.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from soak import of_process

from ood_perception.clustering import StreamingKMeans

TOKENS = 2738


def stream(frames: int, width: int, seed: int) -> list[torch.Tensor]:
    """Tokens near 40 slowly drifting directions with noise; some move to another direction."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.randn(40, width, generator=g)
    drift = 0.02 * torch.randn(40, width, generator=g)
    which = torch.randint(0, 40, (TOKENS,), generator=g)
    found = []
    for frame in range(frames):
        moved = torch.rand(TOKENS, generator=g) < 0.02
        which = torch.where(moved, torch.randint(0, 40, (TOKENS,), generator=g), which)
        noise = 0.4 * torch.randn(TOKENS, width, generator=g)
        found.append((directions + frame * drift)[which] + noise)
    return found


def inertia(tokens: torch.Tensor, centers: torch.Tensor) -> float:
    return float(torch.cdist(tokens, centers).min(1).values.double().square().sum())


def case(width: int, clusters: int, frames: int, iterations: int) -> dict[str, float]:
    ours = StreamingKMeans(clusters, iterations=iterations)
    still = StreamingKMeans(clusters, iterations=iterations)  # sees each scene twice, with noise
    warm: np.ndarray | None = None
    times: dict[str, list[float]] = {'ours': [], 'cold': [], 'warm': []}
    inertias: list[float] = []
    kept: list[float] = []
    for number, tokens in enumerate(stream(frames + 1, width, seed=clusters)):
        array = tokens.numpy()
        start = time.perf_counter()
        ours.step(tokens[None])
        a = time.perf_counter()
        assert ours.centers is not None
        reached = inertia(tokens, ours.centers[0])
        noise = 0.02 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(number))
        same = still.step(tokens[None]) == still.step((tokens + noise)[None])
        b0 = time.perf_counter()
        cold = KMeans(clusters, init='k-means++', n_init=1, random_state=0).fit(array)
        b = time.perf_counter()
        if warm is None:
            warm = cold.cluster_centers_
        again = KMeans(clusters, init=warm, n_init=1, max_iter=3, tol=0).fit(array)
        c = time.perf_counter()
        warm = again.cluster_centers_
        if number:  # the first frame is the start
            times['ours'].append(a - start)
            times['cold'].append(b - b0)
            times['warm'].append(c - b)
            inertias.append(reached / cold.inertia_)
            kept.append(float(same.float().mean()))
    median = {name: 1e3 * float(np.median(values)) for name, values in times.items()}
    return {
        'tokens': TOKENS,
        'width': width,
        'clusters': clusters,
        'inertia_ratio': float(np.median(inertias)),
        'ms_ours': median['ours'],
        'ms_sklearn_converged': median['cold'],
        'ms_sklearn_warm_3': median['warm'],
        'faster_than_converged': median['cold'] / median['ours'],
        'faster_than_warm_3': median['warm'] / median['ours'],
        'faster_than_warm_3_mean': float(np.mean(times['warm']) / np.mean(times['ours'])),
        'static_ids_kept': float(np.median(kept)),
    }


def long_run(frames: int) -> dict[str, float]:
    """
    Many frames of small drifting tokens of two cameras, with scene cuts and cameras that change.

    Returns:
        'frames', 'tensors' (values held at the end over values held after 10 % of the frames) and
        'grown_mb' (resident memory, likewise).

    """
    kmeans = StreamingKMeans(4, max_streams=3)
    g = torch.Generator().manual_seed(0)
    base = torch.randn(2, 16, 4, generator=g)
    early = (0, 0.0)
    for frame in range(frames):
        if frame % 1000 == 0:
            base = 10 * torch.randn(2, 16, 4, generator=g)
        tokens = base + 0.1 * torch.randn(base.shape, generator=g)
        kmeans.step(tokens, ['front', f'{50 * frame // frames}'])
        if frame == frames // 10:
            early = (held(kmeans), of_process(os.getpid())['rss_mb'])
    return {
        'frames': frames,
        'tensors': held(kmeans) / max(early[0], 1),
        'grown_mb': of_process(os.getpid())['rss_mb'] - early[1],
    }


def held(kmeans: StreamingKMeans) -> int:
    """Values in the state's tensors; of the many cameras at most 3 are kept."""
    states = kmeans._states.values()
    return sum(s.centers.numel() + s.counts.numel() + s.usual.numel() for s in states)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=15)
    parser.add_argument('--iterations', type=int, default=1)
    parser.add_argument('--widths', type=int, nargs='+', default=[384, 768])
    parser.add_argument('--clusters', type=int, nargs='+', default=[16, 32, 64])
    parser.add_argument('--long', action='store_true', help='only 100,000 small frames: no growth')
    parser.add_argument('--long-frames', type=int, default=100_000, help='of --long')
    parser.add_argument('--output', type=Path)
    given = parser.parse_args()
    rows = []
    shapes = [(width, clusters) for width in given.widths for clusters in given.clusters]
    for shape in [None] if given.long else shapes:
        if shape is None:
            rows.append(long_run(given.long_frames))
        else:
            rows.append(case(*shape, given.frames, given.iterations))
        print('  '.join(f'{k} {v:.4g}' for k, v in rows[-1].items()), flush=True)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        with given.output.open('w', newline='') as file:
            threads = torch.get_num_threads()
            file.write(f'# python {shlex.join(sys.argv)} (CPU, {threads} threads)\n')
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: round(v, 4) for k, v in row.items()} for row in rows)


if __name__ == '__main__':
    main()
