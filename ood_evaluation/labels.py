# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Labels of an evaluation: what their values mean, and those of a recording that lie in a folder.

A folder keys each label by the stamp of the image that it belongs to:

    LABELS/1735689600100000000.png        the file's name is the stamp in nanoseconds, or
    LABELS/labels.csv                     lines of stamp,file (ns, or seconds with a point)

Values are 0 known, 1 unknown, 255 ignore. A folder may instead hold up to three of these, in
``anomaly/``, ``instances/`` (16 bit, ids of the objects, 0 = none) and ``distance/`` (16 bit,
millimetres, 0 = unknown).
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.frame import Frame
from ood_evaluation.label_files import read_label
from ood_perception.bags.files import SUFFIXES, pictures_in, shown, visible
from ood_perception.frames.picture import BadImage
from ood_perception.labels import Truth

PLAIN = {int(value): int(value) for value in Truth}
"""Values of labels that need no mapping."""

LISTED = 6
"""Values that are named; the rest are counted."""

KINDS = ('anomaly', 'instances', 'distance')

SHOWN = 3
"""Stamps that are named where something does not match; the rest are counted."""


class DatasetError(ValueError):
    """A folder is not the data set or the labels it should be; the text says what is missing."""


class LabelValues:
    """
    Mapping of label values, and statistics of those that were found.

    Args:
        values: value in the label -> 0, 1 or 255; all others are ignored, and named.
        more: mapped besides, and first.

    Attributes:
        found: pixels of each value.
        foreign: labels in which an unmapped value was found.
    """

    def __init__(
        self, values: Mapping[int, int] | None = None, more: Mapping[int, int] | None = None
    ) -> None:
        self.values = {**(PLAIN if values is None else values), **(more or {})}
        self.found: Counter[int] = Counter()
        self.foreign: dict[int, list[str]] = {}
        self.unknown = 0
        self._table = np.full(1 << 16, Truth.IGNORE, np.uint8)
        for value, meaning in self.values.items():
            self._table[value] = meaning

    def __call__(self, label: NDArray[Any], where: str = '') -> NDArray[np.uint8]:
        """
        Map a label.

        Args:
            label: (H, W), whole numbers of 0..65535.
            where: its name, told with values that mean nothing.

        Returns:
            uint8 (H, W) of 0, 1 and 255.
        """
        counts = np.bincount(label.ravel(), minlength=1)
        for value in np.flatnonzero(counts).tolist():
            self.found[value] += int(counts[value])
            if value not in self.values:
                self.foreign.setdefault(value, []).append(where)
        mapped = self._table[label]
        self.unknown += int(np.count_nonzero(mapped == 1))
        return mapped

    def finish(self, problems: Counter[str]) -> None:
        """Name the values that mean nothing, and say when nothing at all was unknown."""
        for value, names in sorted(self.foreign.items()):
            where = f', first in {names[0]}' if names[0] else ''
            problems[
                f'label value {value} ({self.found[value]} px{where}) has no meaning and is '
                f'ignored; --values {value}=1 counts it as unknown'
            ] += len(names)
        if self.found and not self.unknown:
            most = ', '.join(f'{v}: {n} px' for v, n in self.found.most_common(LISTED))
            problems[
                f'no label has an unknown pixel, so there is no AP; values found: {most}; '
                'map them with --values VALUE=1'
            ] += 1


def parse_values(text: str) -> dict[int, int]:
    """
    Mapping of a text such as ``255=1,128=255``.

    Raises:
        ValueError: something else; the text says what was expected.
    """
    values = {}
    for part in text.split(','):
        if not part.strip():
            continue
        left, _, right = part.partition('=')
        if not left.strip().isdecimal() or right.strip() not in ('0', '1', '255'):
            raise ValueError(f'values: expected VALUE=0, 1 or 255, got {part.strip()!r}')
        if int(left) > 65535:
            raise ValueError(f'values: expected values of 0..65535, got {left.strip()}')
        values[int(left)] = int(right)
    return values


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
    if not re.fullmatch(r'\d+\.\d*', text):
        raise ValueError(f'no stamp: {text!r}')
    return int((Decimal(text) * 10**9).to_integral_value())


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
