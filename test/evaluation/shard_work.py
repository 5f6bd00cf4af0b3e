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

"""What workers of the tests do; a module of its own, so that other processes can import it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from ood_perception.evaluation.evaluator import Evaluator, Frame


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
