# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Labels of a recording in a folder, each keyed by the stamp of the image that it belongs to.

    LABELS/1735689600100000000.png        the file's name is the stamp in nanoseconds, or
    LABELS/labels.csv                     lines of stamp,file (ns, or seconds with a point)

Values are 0 known, 1 unknown, 255 ignore. A folder may instead hold up to three of these, in
``anomaly/``, ``instances/`` (16 bit, ids of the objects, 0 = none) and ``distance/`` (16 bit,
millimetres, 0 = unknown).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ood_perception.bags.files import SUFFIXES, pictures_in, read_label, shown, visible
from ood_perception.evaluation.datasets import DatasetError
from ood_perception.evaluation.labels import LabelValues
from ood_perception.frames.picture import BadImage

if TYPE_CHECKING:
    from ood_perception.evaluation.evaluator import Frame

KINDS = ('anomaly', 'instances', 'distance')
SHOWN = 3
"""Stamps that are named where something does not match; the rest are counted."""


class LabelFolder:
    """
    Labels by stamp.

    Args:
        root: folder, or a CSV file.
        values: meaning of the values of anomaly labels, None = 0, 1 and 255 as they are.

    Attributes:
        files: stamp in ns -> label file, for each kind there is.

    Raises:
        DatasetError: no such folder, nothing in it, a stamp that is none or occurs twice, or a
            file of the CSV that does not exist.
    """

    def __init__(self, root: str | Path, values: LabelValues | None = None) -> None:
        self.root = root = Path(root)
        self.values = LabelValues() if values is None else values
        if not root.exists():
            raise DatasetError(f'labels: no folder or CSV file at {root}')
        folders = {kind: root / kind for kind in KINDS if (root / kind).is_dir()}
        folders = folders or {'anomaly': root}
        self.files = {kind: stamped_files(folder) for kind, folder in folders.items()}
        self._seen: set[int] = set()
        self._without: list[int] = []

    @property
    def stamps(self) -> set[int]:
        """Stamps for which there is anything, in ns."""
        return set().union(*self.files.values())

    def fill(self, frame: Frame, problems: Counter[str]) -> None:
        """Put the labels of a frame's stamp into it; an unreadable file is only counted."""
        stamp = frame.stamp_ns
        if not self.saw(stamp):
            self._without.append(stamp)
            return
        for kind, files in self.files.items():
            if stamp not in files:
                continue
            try:
                pixels = read_label(files[stamp])
            except (BadImage, OSError) as error:
                problems[str(error)] += 1
                continue
            if kind == 'anomaly':
                frame.anomaly = self.values(pixels, shown(files[stamp].name))
            elif kind == 'instances':
                frame.truth = pixels
            else:
                frame.distance = pixels.astype(np.float32) / 1000

    def saw(self, stamp: int) -> bool:
        """Note that an image of this stamp exists; whether it has labels."""
        known = any(stamp in files for files in self.files.values())
        if known:
            self._seen.add(stamp)
        return known

    def finish(self, problems: Counter[str]) -> None:
        """Name and count what did not match, once all images of the recording were seen."""
        name_stamps(self.stamps - self._seen, 'labels whose stamp no image has', problems)
        name_stamps(self._without, 'frames whose stamp no label has', problems)
        self.values.finish(problems)


def name_stamps(stamps: Iterable[int], what: str, problems: Counter[str]) -> None:
    """Count stamps as one problem that names the first of them."""
    stamps = sorted(stamps)
    if stamps:
        more = ', ...' if len(stamps) > SHOWN else ''
        problems[f'{what} ({", ".join(map(str, stamps[:SHOWN]))}{more})'] += len(stamps)


def stamped_files(folder: Path) -> dict[int, Path]:
    """
    Label files of a folder by stamp, from its CSV files where it has any, else from their names.

    Raises:
        DatasetError: see `LabelFolder`.
    """
    tables = [folder]
    if folder.is_dir():
        tables = visible(p for p in folder.iterdir() if p.suffix.lower() == '.csv')
    rows: list[tuple[str, Path]] = []
    for table in tables:
        rows += _table(table)
    if not tables:
        rows = [(p.stem, p) for p in pictures_in(folder)]
    found: dict[int, Path] = {}
    for text, path in rows:
        try:
            stamp = parse_stamp(text)
        except ValueError:
            raise DatasetError(
                f'{path}: expected a stamp in ns as its name, or a CSV, got {text!r}'
            ) from None
        if stamp in found:
            raise DatasetError(f'{path}: stamp {stamp} has a label already, {found[stamp]}')
        found[stamp] = path
    if not found:
        raise DatasetError(
            f'labels: {folder} has no {", ".join(SUFFIXES)} and no CSV of stamp,file'
        )
    return found


def parse_stamp(text: str) -> int:
    """Stamp in ns of '1735689600100000000' or of '1735689600.1' (seconds). Raises ValueError."""
    text = text.strip()
    if text.isdecimal():
        return int(text)
    try:
        nanoseconds = Decimal(text) * 10**9 if '.' in text else Decimal('nan')
    except InvalidOperation:
        raise ValueError(f'no stamp: {text!r}') from None
    if not nanoseconds.is_finite() or nanoseconds < 0:
        raise ValueError(f'no stamp: {text!r}')
    return int(nanoseconds.to_integral_value())


def _table(path: Path) -> list[tuple[str, Path]]:
    with path.open(newline='', encoding='utf-8') as file:
        lines = [row for row in csv.reader(file) if row and not row[0].startswith('#')]
    if lines and lines[0][0].strip() == 'stamp':
        lines = lines[1:]
    rows = []
    for number, row in enumerate(lines, 1):
        if len(row) < 2:
            raise DatasetError(f'{path}: row {number}: expected stamp,file, got {",".join(row)!r}')
        file_path = path.parent / row[1].strip()
        if not file_path.is_file():
            raise DatasetError(f'{path}: row {number}: no file {file_path}')
        rows.append((row[0], file_path))
    return rows
