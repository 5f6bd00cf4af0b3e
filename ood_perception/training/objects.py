# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Unknown objects to paste: folders of RGBA cut-outs, and COCO's instances as the papers use them.

An object is a uint8 (h, w, 4) RGBA array; alpha > 127 is the object.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.data import read_image, read_rgba

Array = np.ndarray

COCO_EXCLUDED = (
    'person', 'bicycle', 'car', 'motorcycle', 'bus', 'truck', 'traffic light', 'stop sign',
)  # fmt: skip
"""Images with any of these are dropped; 'train' is allowed, as in the published scripts."""


class Objects(Protocol):
    """A source of unknown objects."""

    name: str

    def __len__(self) -> int: ...

    def load(self, index: int) -> Array:
        """Return object `index` as uint8 (h, w, 4) RGBA."""
        ...


class CutOuts:
    """
    RGBA files of a folder (or of its sub-folder `rgba`).

    Args:
        root: the folder; with an INDEX.csv that has the columns `file` and `recommended`, only
            recommended objects are taken where `recommended` is True.
        recommended: see above.

    """

    def __init__(self, root: Path, recommended: bool = False) -> None:
        self.name = str(root)
        inner = root / 'rgba'
        where = inner if inner.is_dir() else root
        self.paths = sorted(where.glob('*.png')) + sorted(where.glob('*.webp'))
        if recommended:
            good = recommended_names(root)
            self.paths = [path for path in self.paths if path.name in good]
        if not self.paths:
            raise TrainingError(f'{where}: no RGBA cut-outs (*.png, *.webp); without unknown '
                                f'objects a UEM learns nothing')  # fmt: skip

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> Array:
        """Return object `index` as uint8 (h, w, 4) RGBA."""
        return read_rgba(self.paths[index])

    def check(self) -> None:
        """Read every file. Raises TrainingError naming one that is broken or empty."""
        for index, path in enumerate(self.paths):
            if not (self.load(index)[..., 3] > 127).any():
                raise TrainingError(f'{path}: alpha is 0 everywhere')


def recommended_names(root: Path) -> set[str]:
    """Names of the files that INDEX.csv marks as recommended."""
    index = root / 'INDEX.csv'
    if not index.is_file():
        raise TrainingError(f'{index}: missing, so there is nothing recommended')
    with index.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    return {Path(row['file']).name for row in rows if row.get('recommended') == '1'}


class Coco:
    """
    COCO images with every remaining instance unknown, prepared as the published scripts do.

    Images with a class of `COCO_EXCLUDED` are dropped, and images below 480 pixels a side; all
    instances of the others (crowds too) form one object.

    Args:
        images: folder of the images (train2017).
        annotations: instances_train2017.json.
        most: images that are kept of the shuffled list (30,000 in the UEM recipe).
        seed: of the shuffling.

    """

    def __init__(self, images: Path, annotations: Path, most: int = 30_000, seed: int = 0) -> None:
        self.name, self.folder = str(annotations), images
        try:
            tree = json.loads(annotations.read_text(encoding='utf-8'))
            excluded = {c['id'] for c in tree['categories'] if c['name'] in COCO_EXCLUDED}
            by_image: dict[int, list[dict[str, Any]]] = {}
            for item in tree['annotations']:
                by_image.setdefault(item['image_id'], []).append(item)
            self.items = [
                (row['file_name'], row['height'], row['width'], by_image[row['id']])
                for row in tree['images']
                if row['id'] in by_image
                and row['height'] >= 480
                and row['width'] >= 480
                and not any(a['category_id'] in excluded for a in by_image[row['id']])
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f'{annotations}: cannot be read as COCO instances: {error!r}'
            ) from error
        order = np.random.default_rng(seed).permutation(len(self.items))[:most]
        self.items = [self.items[i] for i in order]
        if not self.items:
            raise TrainingError(f'{annotations}: no image without the known classes is in it')
        missing = [name for name, *_ in self.items if not (images / name).is_file()]
        if missing:
            raise TrainingError(
                f'{images / missing[0]}: missing ({len(missing)} of {len(self.items)} images are)'
            )

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> Array:
        """Return a whole image, alpha 255 where any instance is: uint8 (H, W, 4) RGBA."""
        name, height, width, items = self.items[index]
        image = read_image(self.folder / name)
        if image.shape[:2] != (height, width):
            raise TrainingError(f'{self.folder / name}: size differs from the annotations')
        mask = np.zeros((height, width), np.uint8)
        for item in items:
            mask |= decode_segmentation(item['segmentation'], height, width)
        return np.dstack([image, mask * 255])


def decode_segmentation(segmentation: Any, height: int, width: int) -> Array:
    """Mask uint8 (H, W), 0 or 1, of COCO polygons or of uncompressed run lengths."""
    mask = np.zeros((height, width), np.uint8)
    if isinstance(segmentation, dict):
        counts = segmentation['counts']
        if isinstance(counts, str):
            raise TrainingError('compressed run lengths are not supported; use the official json')
        values = np.zeros(len(counts), np.uint8)
        values[1::2] = 1
        return np.repeat(values, counts).reshape(width, height).T.copy()
    for polygon in segmentation:
        points: Any = np.round(np.asarray(polygon, np.float64).reshape(-1, 2)).astype(np.int32)
        cv2.fillPoly(mask, [points], (1,))
    return mask


def open_objects(text: str, recommended: bool = False) -> Objects:
    """
    Open objects given as `rgba:folder`, `coco:root` (annotations/, train2017/), or a folder.

    Raises:
        TrainingError: no such path, an empty set, or broken annotations.

    """
    kind, colon, rest = text.partition(':')
    if not colon:
        kind, rest = 'rgba', text
    root = Path(rest).expanduser()
    if not root.exists():
        raise TrainingError(f'{root}: no such folder')
    if kind == 'rgba':
        return CutOuts(root, recommended)
    if kind == 'coco':
        return Coco(root / 'train2017', root / 'annotations' / 'instances_train2017.json')
    raise TrainingError(f'{text}: expected rgba:folder or coco:folder')


def tight(object_: Array) -> tuple[Array, Array]:
    """Crop to the box of alpha > 127: RGB uint8 (h, w, 3) and mask bool (h, w); h = 0 if none."""
    mask = object_[..., 3] > 127
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return object_[:0, :0, :3], mask[:0, :0]
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return object_[box][..., :3], mask[box]


def choose(objects: Objects | Sequence[Array], rng: np.random.Generator) -> Array:
    """Load one object at random."""
    index = int(rng.integers(len(objects)))
    return objects[index] if isinstance(objects, (list, tuple)) else objects.load(index)  # type: ignore[union-attr]
