# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Evaluation in many processes: shards are evaluated anywhere and their counts merged.

A shard is a whole bag or sequence, since tracks and flicker live through time. Statistics are
integer counts, and sums that are rounded once, so the figures do not depend on how many workers
there were, which died, or which was first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from ood_perception.evaluation.evaluator import Evaluator

Shard = TypeVar('Shard')


RETRIES = 2
"""How often shards whose worker was killed are given to another."""


class WorkerError(RuntimeError):
    """A shard's worker died again and again; the text names the shard."""


def evaluate_shards(
    shards: Sequence[Shard],
    work: Callable[[Shard], Evaluator],
    workers: int = 2,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluator:
    """
    Evaluate every shard and merge in the order of the shards.

    Args:
        shards: what `work` takes, for example paths of bags, one or more; can be pickled.
        work: function of a module that evaluates one shard.
        workers: processes; 1 = in this one.
        on_progress: is told the number of shards done.

    Raises:
        WorkerError: workers died again and again.
    """
    done: dict[int, Evaluator] = {}
    if workers == 1:
        for number, shard in enumerate(shards):
            done[number] = work(shard)
            on_progress(len(done))
    failures = 0
    while left := [i for i in range(len(shards)) if i not in done]:
        # A fresh interpreter: forking a process that has run torch can hang.
        with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
            jobs = {pool.submit(work, shards[i]): i for i in left}
            try:
                for job in as_completed(jobs):
                    done[jobs[job]] = job.result()
                    on_progress(len(done))
            except BrokenProcessPool as error:
                failures += 1
                if failures > RETRIES:
                    lost = [str(shards[i]) for i in left if i not in done]
                    raise WorkerError(
                        f'workers died {failures} times; not evaluated: {", ".join(lost[:5])}'
                    ) from error
    return functools.reduce(Evaluator.merge, (done[i] for i in range(len(shards))))
