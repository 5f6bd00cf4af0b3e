# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Label maps: from the values in a label file to class ids, 254 = unknown, 255 = void; in YAML.

A map's keys: `classes` (names, or their number), `labels` (value -> class id), `void` and
`unknown` (lists of values), `others` ('void' or 'error': what any other value is).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.losses import IGNORE, UNKNOWN

FOLDER = Path(__file__).parent / 'label_maps'

FORBIDDEN = 65535
"""Entry of a table for values that are outside the map."""


@dataclass(frozen=True, eq=False)
class LabelMap:
    """
    How label files become training labels.

    Attributes:
        name: of the map.
        classes: names in the order of the class ids.
        table: uint16 (65536,), label value -> class id, 254, 255, or `FORBIDDEN`.

    """

    name: str
    classes: list[str]
    table: np.ndarray

    def apply(self, label: np.ndarray, path: str | Path) -> np.ndarray:
        """
        Turn a label file's values into class ids.

        Args:
            label: uint8 or uint16 (H, W).
            path: of the file, for the error.

        Returns:
            uint8 (H, W): class ids, 254 unknown, 255 void.

        Raises:
            TrainingError: a value outside the map, naming file and value.

        """
        mapped = self.table[label]
        bad = mapped == FORBIDDEN
        if bad.any():
            values = sorted(np.unique(label[bad]).tolist())
            raise TrainingError(
                f'{path}: label value {values[0]} is not in the label map {self.name!r}'
                f' ({len(values)} such values, {int(bad.sum())} pixels); add it to the map under '
                f'labels, void or unknown'
            )
        return mapped.astype(np.uint8)


def load_label_map(name_or_path: str | Path, classes: list[str] | None = None) -> LabelMap:
    """
    Read a label map by the name of a shipped one or from a YAML file.

    Args:
        name_or_path: see :func:`label_map_names`, or a path.
        classes: names that replace the map's (they must be as many).

    Raises:
        TrainingError: no such map, not YAML, or a wrong key or value, naming file and key.

    """
    path = Path(name_or_path).expanduser()
    if path.suffix not in ('.yaml', '.yml'):
        path = FOLDER / f'{name_or_path}.yaml'
        if not path.is_file():
            raise TrainingError(
                f'no label map named {str(name_or_path)!r}; there are: '
                f'{", ".join(label_map_names())}, or give the path of a YAML file'
            )
    try:
        tree = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f'{path}: cannot be read as YAML: {error}') from error
    return _parse(tree, path, classes)


def label_map_names() -> list[str]:
    """Names of the shipped label maps."""
    return sorted(path.stem for path in FOLDER.glob('*.yaml'))


def _parse(tree: Any, path: Path, classes: list[str] | None) -> LabelMap:
    keys = ('classes', 'labels', 'void', 'unknown', 'others')
    if not isinstance(tree, dict) or set(tree) - set(keys):
        extra = sorted(set(tree) - set(keys)) if isinstance(tree, dict) else [tree]
        raise TrainingError(f'{path}: expected the keys {", ".join(keys)}, got {extra}')
    names = tree.get('classes')
    if isinstance(names, int) and not isinstance(names, bool):
        names = [f'class {i}' for i in range(names)]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise TrainingError(f'{path}: classes: expected names or a number, got {names!r}')
    if len(names) > UNKNOWN:
        raise TrainingError(f'{path}: classes: at most {UNKNOWN} are possible, got {len(names)}')
    if classes is not None:
        if len(classes) != len(names):
            raise TrainingError(f'{path}: has {len(names)} classes, got {len(classes)} names')
        names = classes
    others = tree.get('others', 'error')
    if others not in ('void', 'error'):
        raise TrainingError(f"{path}: others: expected 'void' or 'error', got {others!r}")
    table = np.full(65536, IGNORE if others == 'void' else FORBIDDEN, np.uint16)
    labels = tree.get('labels') or {}
    if not isinstance(labels, dict) or not labels:
        raise TrainingError(f'{path}: labels: expected value: class id pairs, got {labels!r}')
    for value, cls in labels.items():
        if not _is_value(value) or not _is_value(cls) or cls >= len(names):
            raise TrainingError(
                f'{path}: labels: expected value: class id below {len(names)}, got {value}: {cls}'
            )
        table[value] = cls
    for key, target in (('void', IGNORE), ('unknown', UNKNOWN)):
        for value in tree.get(key) or []:
            if not _is_value(value):
                raise TrainingError(f'{path}: {key}: expected 0..65535, got {value!r}')
            table[value] = target
    return LabelMap(path.stem, names, table)


def _is_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 65536
