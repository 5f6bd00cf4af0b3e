# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What was learnt on site, kept from one pipeline to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ood_perception.ros import loading
from ood_perception.ros.reporting import Reporter
from ood_perception.ros.worker import Worker, describe

if TYPE_CHECKING:
    from ood_perception.pipeline import Pipeline


class Learnt:
    """
    The memory of normal of a pipeline that was given back.

    Attributes:
        kept: what `loading.learnt` returned last, empty for nothing.
    """

    def __init__(self, report: Reporter) -> None:
        self.kept = b''
        self._report = report

    def of(self, pipeline: Pipeline | None) -> bytes:
        """What a pipeline has learnt, or, where it has nothing, what is kept."""
        try:
            return (pipeline is not None and loading.learnt(pipeline)) or self.kept
        except Exception as error:  # a device that is lost takes it along
            self._lost(describe(error))
            return self.kept

    def keep(self, worker: Worker) -> None:
        """Keep what the worker's pipeline has learnt, before it is given back."""
        if worker.pipeline is None or loading.memory_of(worker.pipeline) is None:
            return
        try:
            self.kept = worker.call(lambda: self.of(worker.pipeline))
        except TimeoutError as error:
            self._lost(str(error))

    def _lost(self, reason: str) -> None:
        self._report('warn', f'the memory of normal is lost: {reason}')
