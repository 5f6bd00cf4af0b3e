# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Measure on one GPU everything that is promised of it, and say of each bound: met or missed.

    python benchmarks/gpu_suite.py
    python benchmarks/gpu_suite.py --only backbone,sam_encoder
    python benchmarks/gpu_suite.py --dry-run     # every section, tiny, on the CPU: no figures

The suite compiles a dozen networks, which takes minutes; where time is short, run it in pieces
with --only: sections that the output file already holds from the same GPU are kept.

Networks whose weights are not on this machine have random ones, which takes as long; the notes say
so. A section that fails is recorded with its error, and the rest goes on.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

if '--dry-run' in sys.argv:
    os.environ['TRITON_INTERPRET'] = '1'  # Triton reads it when it is imported

import gpu_frames
import gpu_networks
import torch
from gpu_common import Row, Setting

SECTIONS: dict[str, Callable[[Setting], list[Row]]] = {
    'matmul': gpu_networks.matmul,
    'backbone': gpu_networks.backbone,
    'sam_encoder': gpu_networks.sam_encoder,
    'dcnv3': gpu_networks.dcnv3,
    'kmeans': gpu_networks.kmeans,
    'full_frame': gpu_frames.full_frame,
    'compact': gpu_frames.compact,
    'cameras': gpu_frames.cameras,
    'syncs': gpu_frames.syncs,
    'engines': gpu_frames.engines,
    'windows': gpu_networks.windows,
    'training': gpu_networks.training,
    'transfer': gpu_frames.transfer,
    'epilogue': gpu_frames.epilogue,
}
"""Sections in the order in which they run, the promised figures first."""

FIELDS = ('section', 'what', 'value', 'unit', 'bound', 'verdict', 'precision', 'gpu', 'note')


def run(name: str, setting: Setting) -> list[dict[str, str]]:
    """Run one section; its rows, or one row with the error."""
    precision = 'float32 and float16' if name == 'dcnv3' else 'float16'
    precision = 'float32' if name in ('kmeans', 'epilogue') or setting.tiny else precision
    common = {'section': name, 'precision': precision, 'gpu': gpu_name(setting)}
    try:
        rows = SECTIONS[name](setting)
    except Exception as error:
        traceback.print_exc()
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        failed = {'what': name, 'verdict': 'not measured', 'note': f'failed: {line}'}
        return [{**common, **failed}]
    finally:
        if not setting.tiny:
            torch.cuda.empty_cache()
    return [
        {
            **common,
            'what': row.what,
            'value': f'{row.value:.4g}',
            'unit': row.unit,
            'bound': row.bound,
            'verdict': verdict(row, setting),
            'note': row.note,
        }
        for row in rows
    ]


def verdict(row: Row, setting: Setting) -> str:
    """'met', 'missed' or 'not measured'; '' for a figure without a bound."""
    if not row.bound:
        return ''
    if setting.tiny:
        return 'not measured'
    return 'met' if row.met() else 'missed'


def main() -> int:
    """Run the sections, print and write the table; 1 when a section failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--dry-run', action='store_true', help='rehearse on the CPU')
    parser.add_argument('--only', default=','.join(SECTIONS), help='sections, by commas')
    parser.add_argument('--runs', type=int, default=0, help='timed repetitions; 0 = 30, or 1')
    parser.add_argument('--output', type=Path, help='CSV file to write')
    args = parser.parse_args()
    if unknown := set(args.only.split(',')) - set(SECTIONS):
        parser.error(f'--only: expected some of {", ".join(SECTIONS)}, got {sorted(unknown)}')
    if not args.dry_run and not torch.cuda.is_available():
        parser.error('there is no CUDA GPU here; --dry-run rehearses the suite on the CPU')
    setting = Setting(args.dry_run, args.runs or (1 if args.dry_run else 30))
    table: list[dict[str, str]] = []
    kept = earlier(args.output, args.only.split(','), setting) if args.output else []
    for name in args.only.split(','):
        rows = run(name, setting)
        table += rows
        for row in rows:
            bound = f' [{row["bound"]}: {row["verdict"]}]' if row.get('bound') else ''
            figure = f'{row.get("value", "")} {row.get("unit", "")}'
            print(f'{name}: {row["what"]}: {figure}{bound} {row["note"]}', flush=True)
        if args.output:
            write(args.output, kept + table)
    failed = sorted({r['section'] for r in table if r['note'].startswith('failed')})
    counts = {word: sum(r['verdict'] == word for r in table) for word in ('met', 'missed')}
    print(f'bounds: {counts["met"]} met, {counts["missed"]} missed; sections failed: {failed}')
    return 1 if failed else 0


def earlier(path: Path, again: list[str], setting: Setting) -> list[dict[str, str]]:
    """Rows of other sections that the file holds from the same GPU."""
    if not path.is_file():
        return []
    with path.open(encoding='utf-8') as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith('#')))
    return [row for row in rows if row['section'] not in again and row['gpu'] == gpu_name(setting)]


def gpu_name(setting: Setting) -> str:
    """Name of the GPU, or that this is a rehearsal."""
    return 'none: rehearsal' if setting.tiny else torch.cuda.get_device_name()


def write(path: Path, table: list[dict[str, str]]) -> None:
    """Write what there is so far: a suite that is stopped keeps its figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='', encoding='utf-8') as file:
        command = shlex.join(['python', *sys.argv])
        cuda = torch.version.cuda
        file.write(f'# {command} (torch {torch.__version__}, CUDA {cuda})\n')
        writer = csv.DictWriter(file, FIELDS, restval='')
        writer.writeheader()
        writer.writerows(table)


if __name__ == '__main__':
    sys.exit(main())
