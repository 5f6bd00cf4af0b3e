# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Folders of labelled photographs in the vocabulary robot7, and the licences they come under.

A folder has an INDEX.csv with the columns image, label, split, licence, source. Everything that is
wrong with it (a missing file, an empty licence, a label outside the vocabulary, a licence that the
weights may not use) is said before training starts.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ood_training.checkpointing import TrainingError
from ood_training.data import read_image, read_label, read_rgba
from ood_training.label_maps import load_label_map

Array = np.ndarray
Pair = tuple[Array, Array]
"""image uint8 (H, W, 3) RGB, label uint8 (H, W): 0..6 classes, 254 unknown object, 255 void."""

FREE_LICENCES = ('CC BY 2.0', 'CC BY 4.0', 'No known copyright restrictions')
"""Licences under which a company may use what is trained on a picture, with attribution."""

COLUMNS = ('image', 'label', 'split', 'licence', 'source')


@dataclass(frozen=True)
class Photograph:
    """
    One labelled photograph.

    Attributes:
        image: path.
        label: path.
        split: 'train' or 'val' as the folder has it.
        licence: of the picture.
        source: where it comes from, for the attribution.

    """

    image: Path
    label: Path
    split: str
    licence: str
    source: str

    @property
    def key(self) -> str:
        """Number of the COCO picture where the name ends in one, otherwise the name."""
        digits = self.image.stem.rpartition('_')[2]
        return str(int(digits)) if digits.isdigit() else self.image.stem


def read_index(folder: Path) -> list[Photograph]:
    """
    Read the INDEX.csv of a folder.

    Raises:
        TrainingError: no index, a column that is missing, an empty licence, or an image or label
            that is not there; names the folder's first such row and their number.

    """
    rows = _rows(folder / 'INDEX.csv', COLUMNS)
    _refuse(folder, rows, lambda row: not row['licence'].strip(), 'has no licence', 'image')
    for column in ('image', 'label'):

        def missing(row: dict[str, str], column: str = column) -> bool:
            return not (folder / row[column]).is_file()

        _refuse(folder, rows, missing, f'is missing ({column})', column)
    return [
        Photograph(
            folder / row['image'], folder / row['label'], row['split'], row['licence'].strip(),
            row['source'],
        )
        for row in rows
    ]  # fmt: skip


def only_free(photographs: Sequence[Photograph]) -> list[Photograph]:
    """
    Return the photographs, all of which must have a free licence.

    Raises:
        TrainingError: one has another licence, naming it.

    """
    bound = [p for p in photographs if p.licence not in FREE_LICENCES]
    if bound:
        raise TrainingError(
            f'{bound[0].image}: licence {bound[0].licence!r} is not one of '
            f'{", ".join(FREE_LICENCES)} ({len(bound)} of {len(photographs)} pictures)'
        )
    return list(photographs)


def in_held_out_fifth(key: str) -> bool:
    """
    Whether a picture belongs to the fifth that is only validated on.

    Cut-outs and photographs of the same picture are on the same side.
    """
    return int(hashlib.sha1(key.encode()).hexdigest(), 16) % 5 == 0


def load(photographs: Sequence[Photograph], sharpen: float = 0.0) -> list[Pair]:
    """
    Read photographs into memory.

    Args:
        photographs: to read.
        sharpen: amount of an unsharp mask, for pictures that views enlarge.

    Raises:
        TrainingError: a file that cannot be read, sizes that differ, a label outside robot7.

    """
    label_map = load_label_map('robot7')
    pairs = []
    for photograph in photographs:
        image = read_image(photograph.image)
        label = label_map.apply(read_label(photograph.label), photograph.label)
        if image.shape[:2] != label.shape:
            raise TrainingError(
                f'{photograph.label}: label is {label.shape[::-1]}, its image {image.shape[1::-1]}'
            )
        if sharpen:
            soft = cv2.GaussianBlur(image, (0, 0), 1.0)
            image = cv2.addWeighted(image, 1 + sharpen, soft, -sharpen, 0)
        pairs.append((image, label))
    return pairs


def load_cutouts(root: Path, held_out: bool, free: bool = False) -> list[Array]:
    """
    Load RGBA cut-outs of `root`, split by the picture that they come from.

    Args:
        root: folder with INDEX.csv (columns file, coco_image_id, fill, border_sides, licence,
            commercial_use_allowed; main_component_frac and recommended where it has them).
        held_out: True for the held-out fifth, of which only good ones are taken.
        free: only those that a company may use.

    Raises:
        TrainingError: no index, a file that is missing, an empty licence, or nothing to use.

    """
    columns = (
        'file',
        'coco_image_id',
        'fill',
        'border_sides',
        'licence',
        'commercial_use_allowed',
    )
    rows = _rows(root / 'INDEX.csv', columns)
    _refuse(root, rows, lambda row: not row['licence'].strip(), 'has no licence', 'file')
    _refuse(root, rows, lambda row: not (root / row['file']).is_file(), 'is missing', 'file')
    objects = []
    for row in rows:
        key = str(int(row['coco_image_id']))
        if in_held_out_fifth(key) != held_out or (free and row['commercial_use_allowed'] != '1'):
            continue
        whole = float(row.get('main_component_frac') or 1) >= 0.8
        usable = whole and len(row['border_sides']) <= 1 and float(row['fill']) >= 0.3
        good = row.get('recommended', '1' if usable and not row['border_sides'] else '0') == '1'
        if good or (usable and not held_out):
            objects.append(read_rgba(root / row['file']))
    if not objects:
        raise TrainingError(f'{root}: no cut-outs to use')
    return objects


def attribution(photographs: Sequence[Photograph]) -> list[str]:
    """One line a licence and origin, as CC BY asks for; single Flickr pictures by address."""
    lines: dict[str, int] = {}
    for p in photographs:
        origin = p.source if p.source.startswith('http') else ' '.join(p.source.split()[:2])
        line = f'{origin} ({p.licence})'
        lines[line] = lines.get(line, 0) + 1
    return [f'{line}: {count} pictures' if count > 1 else line for line, count in lines.items()]


def _rows(index: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not index.is_file():
        raise TrainingError(f'{index}: missing')
    with index.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file)
        lacking = [c for c in columns if c not in (reader.fieldnames or ())]
        if lacking:
            raise TrainingError(f'{index}: has no column {", ".join(lacking)}')
        return list(reader)


def _refuse(
    folder: Path,
    rows: Sequence[dict[str, str]],
    wrong: Callable[[dict[str, str]], bool],
    what: str,
    column: str,
) -> None:
    bad = [row for row in rows if wrong(row)]
    if bad:
        raise TrainingError(f'{folder / bad[0][column]}: {what} ({len(bad)} of {len(rows)} rows)')
