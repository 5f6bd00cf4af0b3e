# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Tables of results that grow with every run."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def append(path: Path, fields: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Append rows to a CSV, with a heading if it is new; floats get 4 digits after the point."""
    fresh = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a', newline='') as file:
        writer = csv.DictWriter(file, fields, extrasaction='ignore')
        if fresh:
            writer.writeheader()
        for row in rows:
            writer.writerow({k: f'{v:.4f}' if isinstance(v, float) else v for k, v in row.items()})
