# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Streaming pixel metrics beside scikit-learn on frames of 720x1280.

    python benchmarks/pixel_metrics.py --frames 100

Prints both times, their ratio within one run, the figures and the peak memory of streaming, which
runs first, above what the process had before.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np

from ood_evaluation.pixel_metrics import PixelMetrics


def frames(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for seed in range(count):
        rng = np.random.default_rng(seed)
        label = (rng.random((720, 1280)) < 0.02).astype(np.uint8)
        yield rng.normal(size=label.shape).astype(np.float32) + 3 * label, label


def peak() -> float:
    """Most memory so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--frames', type=int, default=100)
    count = parser.parse_args().frames
    for _ in frames(2):
        pass
    before, metrics, streaming = peak(), PixelMetrics('streaming'), 0.0
    for score, label in frames(count):
        begin = time.perf_counter()
        metrics.update(score, label)
        streaming += time.perf_counter() - begin
    begin = time.perf_counter()
    found = metrics.compute()
    streaming += time.perf_counter() - begin
    print(f'streaming {streaming:.2f} s, {peak() - before:.0f} MB, AP {found["ap"]:.6f}')

    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    kept = list(frames(count))
    score = np.concatenate([s.ravel() for s, _ in kept])
    label = np.concatenate([y.ravel() for _, y in kept])
    begin = time.perf_counter()
    ap = average_precision_score(label, score)
    roc_auc_score(label, score)
    roc_curve(label, score)
    exact = time.perf_counter() - begin
    print(
        f'scikit-learn {exact:.2f} s, AP {ap:.6f}, '
        f'bounds {found["ap_low"]:.6f} to {found["ap_high"]:.6f}'
    )
    print(f'ratio {exact / streaming:.1f}')


if __name__ == '__main__':
    main()
