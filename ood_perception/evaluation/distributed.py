# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Evaluation in many processes: shards are evaluated anywhere and their counts merged.

A shard is a whole bag or sequence, since tracks and flicker live through time. Statistics are
integer counts, and sums that are rounded once, so the figures do not depend on how many workers
there were, which died, or which was first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from ood_perception.evaluation.evaluator import Evaluator

Shard = TypeVar('Shard')


class WorkerError(RuntimeError):
    """A shard's worker died again and again; the text names the shard."""


def evaluate_shards(
    shards: Sequence[Shard],
    work: Callable[[Shard], Evaluator],
    workers: int = 2,
    retries: int = 2,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluator:
    """
    Evaluate every shard and merge in the order of the shards.

    Args:
        shards: what `work` takes, for example paths of bags; can be pickled.
        work: function of a module that evaluates one shard.
        workers: processes; 1 = in this one.
        retries: how often a shard whose worker was killed is given to another.
        on_progress: is told the number of shards done.

    Raises:
        ValueError: no shards, or workers below 1.
        WorkerError: a shard's worker died more often than `retries`.
    """
    if not shards:
        raise ValueError('shards: expected at least one, got none')
    if workers < 1:
        raise ValueError(f'workers: expected 1 or more, got {workers}')
    tell = on_progress or (lambda done: None)
    parts: list[Evaluator] = []
    if workers > 1:
        parts = _with_processes(shards, work, workers, retries, tell)
    else:
        for shard in shards:
            parts.append(work(shard))
            tell(len(parts))
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    return merged


def _with_processes(
    shards: Sequence[Any], work: Any, workers: int, retries: int, tell: Callable[[int], None]
) -> list[Evaluator]:
    done: dict[int, Evaluator] = {}
    failures = 0
    while len(done) < len(shards):
        left = [i for i in range(len(shards)) if i not in done]
        # A fresh interpreter: forking a process that has run torch can hang.
        with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
            jobs = {pool.submit(work, shards[i]): i for i in left}
            try:
                for job in as_completed(jobs):
                    done[jobs[job]] = job.result()
                    tell(len(done))
            except BrokenProcessPool as error:
                failures += 1
                if failures > retries:
                    lost = [str(shards[i]) for i in left if i not in done]
                    raise WorkerError(
                        f'workers died {failures} times; not evaluated: {", ".join(lost[:5])}'
                    ) from error
    return [done[i] for i in range(len(shards))]
