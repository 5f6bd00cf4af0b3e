# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Cut-outs of a folder with an index, split into those of training and those of validation."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ood_training.checkpointing import TrainingError
from ood_training.data import read_rgba

HELD_OUT = 5
"""One of so many source pictures is kept for validation, by the SHA-1 of its number."""


def load_objects(root: Path, held_out: bool, recommended: bool = False) -> list[np.ndarray]:
    """
    Load cut-outs of `root`, split by the picture that they come from.

    Args:
        root: folder with INDEX.csv (columns file, coco_image_id, recommended; fill and
            border_sides where those that are not recommended are wanted).
        held_out: True for those kept for validation, which are only recommended ones; False for
            the others. No picture is in both.
        recommended: leave out the others of the training share, too.

    Returns:
        uint8 (h, w, 4) RGBA each.

    Raises:
        TrainingError: no index, nothing in it, or a file that cannot be read.

    """
    columns = ['file', 'coco_image_id', 'recommended']
    all_of_them = not held_out and not recommended
    columns += ['fill', 'border_sides'] if all_of_them else []
    objects = []
    for row in index_rows(root, columns):
        digest = hashlib.sha1(row['coco_image_id'].encode()).hexdigest()
        if (int(digest, 16) % HELD_OUT == 0) != held_out:
            continue
        usable = all_of_them and not row['border_sides'] and float(row['fill']) >= 0.3
        if usable or row['recommended'] == '1':
            objects.append(read_rgba(root / row['file']))
    if not objects:
        raise TrainingError(f'{root}: no {"held-out " * held_out}objects in its INDEX.csv')
    return objects


def index_rows(folder: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of the folder's INDEX.csv. Raises TrainingError: none, or a column is missing."""
    path = folder / 'INDEX.csv'
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f'{path}: cannot be read: {error}') from error
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise TrainingError(f'{path}: has no column {", ".join(missing)}, or no rows')
    return rows
