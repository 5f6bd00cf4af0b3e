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
Streaming K-means against scikit-learn on a drifting stream of tokens, on this machine's CPU.

Each frame is clustered by (a) ours, warm, (b) scikit-learn k-means++ until it converges, (c)
scikit-learn from the last centers, 3 iterations. Prints inertia and time as ratios of one run:

    python benchmarks/streaming_kmeans.py --output benchmarks/results/streaming_kmeans.csv
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans

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
        'static_ids_kept': float(np.median(kept)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=15)
    parser.add_argument('--iterations', type=int, default=2)
    parser.add_argument('--long', action='store_true', help='100,000 tiny frames: no growth')
    parser.add_argument('--output', type=Path)
    given = parser.parse_args()
    rows = []
    for width in (384, 768):
        for clusters in (16, 32, 64):
            row = case(width, clusters, given.frames, given.iterations)
            rows.append(row)
            print('  '.join(f'{k} {v:.4g}' for k, v in row.items()), flush=True)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        with given.output.open('w', newline='') as file:
            threads = torch.get_num_threads()
            file.write(f'# python benchmarks/streaming_kmeans.py (CPU, {threads} threads)\n')
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: round(v, 4) for k, v in row.items()} for row in rows)
    if given.long:
        import resource

        kmeans = StreamingKMeans(4, iterations=1)
        tokens = torch.randn(1, 8, 4)
        kmeans.step(tokens)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(100_000):
            kmeans.step(tokens)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f'100,000 frames: peak memory grew by {grown / 1024:.1f} MB')


if __name__ == '__main__':
    main()
