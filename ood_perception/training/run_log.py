# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a run writes while it goes: a CSV log, TensorBoard where installed, a progress bar."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

COLUMNS = ('step', 'kind', 'name', 'value', 'seconds')


class RunLog:
    """
    Log of a run: `log.csv` with one number a row, and the same numbers for TensorBoard.

    Rows after the step a run resumes from are dropped, so the log is that of one run.

    Args:
        folder: of the run.
        steps: of the whole run.
        start: steps done before.
        active: False on all processes but the first, which write nothing.

    """

    def __init__(self, folder: Path, steps: int, start: int = 0, active: bool = True) -> None:
        self.path, self.steps, self.start, self.active = folder / 'log.csv', steps, start, active
        self._began = time.monotonic()
        self._images = 0
        self._progress: Any = None
        self._board: Any = None

    def __enter__(self) -> RunLog:
        if not self.active:
            return self
        rows = []
        if self.start and self.path.is_file():
            with self.path.open(newline='', encoding='utf-8') as file:
                rows = [row for row in csv.reader(file) if row and row[0].isdigit()]
            rows = [row for row in rows if int(row[0]) <= self.start]
        with self.path.open('w', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(
                str(self.path.parent / 'tensorboard'), purge_step=self.start
            )
        except ImportError:
            self._board = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._progress = Progress(
                TextColumn('{task.description}'),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._progress.start()
            self._progress.add_task('train', total=self.steps, completed=self.start)
        return self

    def count(self, step: int, images: int) -> None:
        """Note that optimiser step `step` is done, with so many images."""
        self._images += images
        if self._progress is not None:
            self._progress.update(0, completed=step)

    def write(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Write numbers of kind 'train' or 'val'."""
        if not self.active or not values:
            return
        seconds = time.monotonic() - self._began
        if kind == 'train':
            values = {**values, 'images_per_s': self._images / max(seconds, 1e-9)}
        rows = [(step, kind, name, f'{v:.9g}', f'{seconds:.1f}') for name, v in values.items()]
        with self.path.open('a', newline='', encoding='utf-8') as file:
            csv.writer(file).writerows(rows)
        for name, value in values.items():
            if self._board is not None:
                self._board.add_scalar(f'{kind}/{name}', value, step)
        line = ' '.join(f'{name} {value:.4g}' for name, value in values.items())
        if self._progress is not None:
            self._progress.update(0, description=f'{kind} {line}')
            if kind == 'val':
                self._progress.console.print(f'step {step} {kind} {line}')
        elif kind == 'val' or step == self.steps or step % 50 == 0:
            print(f'step {step}/{self.steps} {kind} {line}', file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._board is not None:
            self._board.close()


def read_log(path: Path, kind: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of one number in a log."""
    with path.open(newline='', encoding='utf-8') as file:
        return [
            (int(row['step']), float(row['value']))
            for row in csv.DictReader(file)
            if row['kind'] == kind and row['name'] == name
        ]
