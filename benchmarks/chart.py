# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Draw one chart of all ratios in benchmarks/results/*.csv: how many times faster than what.

    python benchmarks/chart.py

Reads what is there of peers.csv, uem_windows.csv, streaming_kmeans.csv, dcnv3_memory.csv, any CSV
of `ood bench`, and gpu_suite.csv; writes docs/images/speed.svg, readable on light and dark pages.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

ROW, LEFT, WIDTH, RIGHT = 20, 430, 300, 190
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.group { font-weight: 600 } .small { fill: #57606a }
.faster { fill: #2f81f7 } .slower { fill: #d9822b } line { stroke: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9da7b1 } line { stroke: #6e7681 }
}
"""


class Bar(NamedTuple):
    """One ratio: above 1 is faster than the alternative, or better than what was asked for."""

    group: str
    label: str
    ratio: float
    detail: str = ''


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file whose comments start with '#'."""
    with path.open(encoding='utf-8') as file:
        return list(csv.DictReader(line for line in file if not line.startswith('#')))


def peers(rows: list[dict[str, str]]) -> Iterator[Bar]:
    names = {
        'sam': 'Masks: segment-anything',
        'kmeans': 'Clusters: scikit-learn',
        'windows': 'UEM windows: plain loops',
        'network': 'Compact network: timm, PyTorch eager',
        'metrics': 'Metrics: scikit-learn',
    }
    for row in rows:
        if row['ratio']:
            detail = f'{float(row["peer_ms"]):.3g} to {float(row["ours_ms"]):.3g} ms'
            label = row['peer'].removeprefix('segment-anything ').removeprefix('scikit-learn ')
            label = row['ours'] if row['section'] == 'network' else f'{label}, {row["note"]}'
            yield Bar(names[row['section']], label, float(row['ratio']), detail)


def uem_windows(rows: list[dict[str, str]]) -> Iterator[Bar]:
    for row in rows:
        if row.get('way', '').startswith('ours'):
            group = f'UEM windows, {row["network"]} network: official two-pass loop'
            yield Bar(group, row['way'], float(row['ratio']), f'{row["ms"]} ms')


def streaming_kmeans(rows: list[dict[str, str]]) -> Iterator[Bar]:
    for key, label in (
        ('faster_than_converged', 'converged on each frame'),
        ('faster_than_warm_3', 'warm start, 3 iterations'),
    ):
        values = [float(row[key]) for row in rows]
        detail = f'{min(values):.2g} to {max(values):.3g}, {len(rows)} sizes'
        yield Bar('Streaming K-means: scikit-learn', label, statistics.median(values), detail)


def dcnv3_memory(rows: list[dict[str, str]]) -> Iterator[Bar]:
    for row in rows:
        if row['way'] == 'table':
            label = f'{row["model"]} at {row["size"]}, CPU'
            detail = f'{row["wall_s"]} s, {row["peak_gb"]} GB'
            yield Bar('DCNv3: all points at once', label, 1 / float(row['wall_ratio']), detail)


def ood_bench(rows: list[dict[str, str]]) -> Iterator[Bar]:
    first: dict[tuple[str, ...], float] = {}
    for row in rows:
        key = tuple(row[k] for k in ('profile', 'device', 'size', 'cameras'))
        ms = float(row['ms_median'])
        if key in first:
            label = f'{row["profile"]} {row["size"]}, {row["cameras"]} camera(s), {row["engine"]}'
            yield Bar('Whole pipeline: engine eager', label, first[key] / ms, f'{row["fps"]} fps')
        first.setdefault(key, ms)


def gpu_suite(rows: list[dict[str, str]]) -> Iterator[Bar]:
    for row in rows:
        if row['verdict'] in ('met', 'missed') and float(row['value']) > 0:
            sign, limit = row['bound'].split()
            ratio = float(row['value']) / float(limit)
            group = f'{row["gpu"]}: reached over asked'
            detail = f'{row["value"]} {row["unit"]} ({row["bound"]})'
            yield Bar(group, row['what'], ratio if sign == '>=' else 1 / ratio, detail)


READERS: dict[str, Callable[[list[dict[str, str]]], Iterator[Bar]]] = {
    'peers': peers,
    'uem_windows': uem_windows,
    'streaming_kmeans': streaming_kmeans,
    'dcnv3_memory': dcnv3_memory,
    'gpu_suite': gpu_suite,
}


def collect(folder: Path) -> list[Bar]:
    """All bars of the CSV files of a folder; files that hold no ratios are passed over."""
    bars: list[Bar] = []
    for path in sorted(folder.glob('*.csv')):
        rows = read(path)
        if path.stem in READERS:
            bars += READERS[path.stem](rows)
        elif rows and {'ms_median', 'fps', 'engine'} <= set(rows[0]):
            bars += ood_bench(rows)
    return sorted(bars, key=lambda bar: bar.group)


def draw(bars: list[Bar]) -> str:
    """An SVG of horizontal bars on a logarithmic scale around 1."""
    logs = [math.log10(bar.ratio) for bar in bars]
    low, high = min(0.0, *logs), max(math.log10(2), *logs)
    scale = WIDTH / (high - low)
    zero = LEFT - low * scale
    parts, y = [], 34
    for group, members in itertools.groupby(bars, key=lambda bar: bar.group):
        parts.append(f'<text class="group" x="8" y="{y + 14}">{escape(group)}</text>')
        y += ROW
        for bar in members:
            length = math.log10(bar.ratio) * scale
            kind = 'faster' if length >= 0 else 'slower'
            label = bar.label if len(bar.label) <= 66 else bar.label[:65] + '…'
            parts += [
                f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>',
                f'<rect class="{kind}" x="{min(zero, zero + length):.1f}" y="{y + 4}" '
                f'width="{max(abs(length), 1):.1f}" height="12" rx="2"/>',
                f'<text x="{max(zero, zero + length) + 6:.1f}" y="{y + 14}">{bar.ratio:.3g}x '
                f'<tspan class="small">{escape(bar.detail)}</tspan></text>',
            ]
            y += ROW
        y += 6
    head = 'How many times faster than the alternative named (logarithmic; the line is 1x)'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" '
        f'height="{y + 8}" viewBox="0 0 {LEFT + WIDTH + RIGHT} {y + 8}" role="img">'
        f'<style>{STYLE}</style><text class="small" x="8" y="20">{head}</text>'
        f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="30" y2="{y}"/>{"".join(parts)}</svg>\n'
    )


def main() -> None:
    """Write the chart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__).resolve().parent
    parser.add_argument('--results', type=Path, default=here / 'results')
    parser.add_argument('--output', type=Path, default=here.parent / 'docs/images/speed.svg')
    args = parser.parse_args()
    bars = collect(args.results)
    if not bars:
        parser.error(f'{args.results} holds no CSV file with ratios')
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(draw(bars), encoding='utf-8')
    print(f'{len(bars)} bars in {args.output}, {args.output.stat().st_size / 1000:.1f} kB')


if __name__ == '__main__':
    main()
