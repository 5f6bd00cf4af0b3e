# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What the values of labels mean: one mapping to 0 known, 1 unknown, 255 ignore."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
PLAIN = {0: 0, 1: 1, 255: 255}
"""Values of labels that need no mapping."""

LISTED = 6
"""Values that are named; the rest are counted."""


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
        self._table = np.full(1 << 16, IGNORE, np.uint8)
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
