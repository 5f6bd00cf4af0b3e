# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Fairness: four cameras at 15 Hz into one node; no camera may be starved, memory stays flat.

    python benchmarks/fairness.py --output benchmarks/results/fairness.csv
    python benchmarks/fairness.py --minutes 5 --cameras 6 --rate 30

Counts the frames of each camera that were received, processed and dropped between the first and
the last diagnostics, so that start and end do not blur the figures. Exits 1 when the fewest frames
of a camera are below 80 % of the most.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from soak import options, run, write

FAIR = 0.8
"""Fewest over most processed frames that is called fair."""


def main() -> int:
    arguments = options(__doc__.splitlines()[1], 1.0).parse_args()
    first: dict[str, dict[str, float]] = {}

    def note(rig: object) -> bool:
        if not first and getattr(rig, 'samples', None):
            first.update({k: dict(v) for k, v in rig.cameras.items()})  # type: ignore[attr-defined]
        return False

    rig, code = run(arguments, 'ood_fairness', note)
    rows = []
    seconds = rig.samples[-1]['seconds'] - rig.samples[0]['seconds']
    for name, books in sorted(rig.cameras.items()):
        before = first.get(name, {})
        counts = {k: int(v - before.get(k, 0)) for k, v in books.items()}
        rows.append({'camera': name, **counts, 'fps': round(counts['processed'] / seconds, 2)})
    done = [row['processed'] for row in rows]
    ratio = min(done) / max(max(done), 1)
    judged = rig.samples[int(len(rig.samples) * arguments.warm_up) :]
    memory = [sample['rss_mb'] for sample in judged]
    if arguments.output:
        extra = {
            'seconds': round(seconds, 1),
            'fewest_over_most': round(ratio, 3),
            'rss_mb_first': memory[0],
            'rss_mb_last': memory[-1],
            'rss_mb_largest': max(memory),
        }
        write(arguments.output, [{**row, **extra} for row in rows])
    table = Table(
        title=f'{arguments.cameras} cameras at {arguments.rate:g} Hz {arguments.size}, profile '
        f'{arguments.profile}, {seconds:.0f} s'
    )
    for column in rows[0]:
        table.add_column(column, justify='left' if column == 'camera' else 'right')
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console(width=110)
    console.print(table)
    console.print(
        f'fewest/most processed {ratio:.3f}; resident memory {memory[0]:.1f} MB to '
        f'{memory[-1]:.1f} MB, largest {max(memory):.1f} MB'
    )
    problems = [] if code == 0 else [f'the node ended with {code} on SIGINT']
    if ratio < FAIR:
        problems.append('cameras are served unevenly')
    console.print('; '.join(problems) or 'fair')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
