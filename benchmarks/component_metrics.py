# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Component metrics beside one scan of the image per component, at 720x1280 with about 1,000 of them.

    python benchmarks/component_metrics.py

Prints both times and their ratio within one run; both must give the same figures.
"""

from __future__ import annotations

import time

import numpy as np
from scipy.ndimage import label as connected

from ood_evaluation.component_metrics import Track, component_figures


def scene() -> tuple[np.ndarray, np.ndarray]:
    """About 1,000 predicted squares, every tenth on a true object."""
    rng = np.random.default_rng(0)
    label, found = np.zeros((720, 1280), np.uint8), np.zeros((720, 1280), bool)
    for number, (y, x) in enumerate((y, x) for y in range(5, 700, 23) for x in range(5, 1250, 38)):
        side = int(rng.integers(8, 20))
        found[y : y + side, x : x + side] = True
        if number % 10 == 0:
            label[y : y + 20, x : x + 12] = 1
    return found, label


def one_scan_each(found: np.ndarray, label: np.ndarray, track: Track) -> tuple[list, list]:
    """Look at the whole image once for every component."""
    truth, n_truth = connected(label == 1, np.ones((3, 3)))
    guess, n_guess = connected(found, np.ones((3, 3)))
    raw = guess.copy()
    for c in range(n_guess + 1):
        if np.count_nonzero(raw == c) < track.smallest_prediction:
            guess[raw == c] = 0
    siou, ppv = [], []
    for k in range(1, n_truth + 1):
        mine = truth == k
        touching = np.isin(guess, np.unique(guess[mine & (guess > 0)]))
        both = np.count_nonzero(mine & (guess > 0))
        other = np.count_nonzero(touching & (truth > 0) & ~mine)
        siou.append(both / (touching.sum() + mine.sum() - both - other))
    for c in np.unique(guess[guess > 0]):
        ppv.append((truth[guess == c] > 0).mean())
    return siou, ppv


def main() -> None:
    found, label = scene()
    track = Track(50, 10)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        fast = component_figures(found, label, track)
        times.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    slow = one_scan_each(found, label, track)
    scans = time.perf_counter() - begin
    assert all(np.array_equal(np.sort(a), np.sort(b)) for a, b in zip(fast, slow, strict=True))
    components = len(fast[0]) + len(fast[1])
    print(f'components {components}; one count {min(times) * 1e3:.1f} ms, scans {scans:.2f} s')
    print(f'ratio {scans / min(times):.0f}')


if __name__ == '__main__':
    main()
