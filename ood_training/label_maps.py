# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Label maps: from the values in a label file to class ids, 254 = unknown, 255 = void; in YAML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ood_perception.labels import Label
from ood_training.checkpointing import TrainingError

FOLDER = Path(__file__).parent / 'label_maps'

FORBIDDEN = 65535
"""Entry of a table for values that are outside the map."""

Value = Annotated[int, Field(ge=0, le=65535, strict=True)]


Values = Annotated[list[Value], Field(description='a list of values 0..65535')]


class _File(BaseModel):
    """The keys of a label map's file; `others` says what any value is that is not listed."""

    model_config = ConfigDict(extra='forbid')
    classes: list[str] = Field(
        min_length=1,
        max_length=Label.UNKNOWN,
        description=f'1 to {Label.UNKNOWN:d} names, or their number',
    )
    labels: dict[Value, Value] = Field(min_length=1, description='value: class id pairs')
    void: Values = []
    unknown: Values = []
    others: Literal['void', 'error'] = Field('error', description="'void' or 'error'")


@dataclass(frozen=True, eq=False)
class LabelMap:
    """How label files become training labels."""

    name: str  # of the map
    classes: list[str]  # names in the order of the class ids
    table: np.ndarray  # uint16 (65536,), label value -> class id, 254, 255, or `FORBIDDEN`

    def apply(self, label: np.ndarray, path: str | Path) -> np.ndarray:
        """
        Turn a label file's values, uint8 or uint16 (H, W), into uint8 (H, W) training labels.

        Raises:
            TrainingError: a value outside the map, naming it and `path`.
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
    file = _parse(tree, path)
    if classes is not None and len(classes) != len(file.classes):
        raise TrainingError(f'{path}: has {len(file.classes)} classes, got {len(classes)} names')
    table = np.full(65536, Label.VOID if file.others == 'void' else FORBIDDEN, np.uint16)
    for value, class_id in file.labels.items():
        if class_id >= len(file.classes):
            raise TrainingError(
                f'{path}: labels: expected value: class id below {len(file.classes)}, '
                f'got {value}: {class_id}'
            )
        table[value] = class_id
    table[file.void] = Label.VOID
    table[file.unknown] = Label.UNKNOWN
    return LabelMap(path.stem, classes or file.classes, table)


def label_map_names() -> list[str]:
    """Names of the shipped label maps."""
    return sorted(path.stem for path in FOLDER.glob('*.yaml'))


def _parse(tree: Any, path: Path) -> _File:
    if isinstance(tree, dict):
        tree = {key: value for key, value in tree.items() if value is not None}
        if type(tree.get('classes')) is int:
            tree['classes'] = [f'class {i}' for i in range(tree['classes'])]
    try:
        return _File.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first['loc'][0]) if first['loc'] else ''
        if key not in _File.model_fields:
            keys = ', '.join(_File.model_fields)
            raise TrainingError(f'{path}: expected the keys {keys}, got {key or tree!r}') from None
        expected = _File.model_fields[key].description
        got = 'none' if first['type'] == 'missing' else repr(first['input'])
        raise TrainingError(f'{path}: {key}: expected {expected}, got {got}') from None
