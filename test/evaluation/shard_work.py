# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What workers of the tests do; a module of its own, so that other processes can import it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from ood_evaluation.evaluator import Evaluator, Frame


def by_thresholds(seed: int) -> Evaluator:
    rng = np.random.default_rng(seed)
    evaluator = Evaluator('shards', track='obstacle')
    for number in range(4):
        label = (rng.random((40, 50)) < 0.2).astype(np.uint8)
        score = (rng.normal(size=label.shape) + label).astype(np.float32)
        heatmap = (255 / (1 + np.exp(-score))).astype(np.uint8)
        ids = (np.cumsum(label, 1) * label // 9).astype(np.uint16)
        evaluator.update(Frame(number, f'{seed}', score, heatmap, ids, None, label, ids))
    return evaluator


def dies_once(shard: tuple[Path, int]) -> Evaluator:
    marker, seed = shard
    if seed == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return by_thresholds(seed)


def fails_always(shard: str) -> Evaluator:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError(shard)
