# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""COCO's instances as unknown objects, prepared as the papers' scripts do; on pycocotools."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np

from ood_training.checkpointing import TrainingError
from ood_training.data import Array, Objects, read_image
from ood_training.data import open_objects as open_cut_outs

COCO_EXCLUDED = (
    'person', 'bicycle', 'car', 'motorcycle', 'bus', 'truck', 'traffic light', 'stop sign',
)  # fmt: skip
"""Images with any of these are dropped; 'train' is allowed, as in the published scripts."""


class Coco:
    """
    COCO images with every remaining instance unknown.

    Images with a class of `COCO_EXCLUDED` are dropped, and images below 480 pixels a side; all
    instances of the others (crowds too) form one object.

    Args:
        images: folder of the images (train2017).
        annotations: instances_train2017.json.
        limit: images that are kept of the shuffled list (30,000 in the UEM recipe).
        seed: of the shuffling.

    Raises:
        TrainingError: annotations that cannot be read, no image left, or missing images.

    """

    def __init__(
        self, images: Path, annotations: Path, limit: int = 30_000, seed: int = 0
    ) -> None:
        from pycocotools.coco import COCO

        self.name, self.folder = str(annotations), images
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.coco = COCO(str(annotations))
            excluded = set(self.coco.getCatIds(catNms=list(COCO_EXCLUDED)))
            rows = [
                row
                for row in self.coco.dataset['images']
                if row['height'] >= 480
                and row['width'] >= 480
                and (items := self.coco.imgToAnns.get(row['id']))
                and not any(item['category_id'] in excluded for item in items)
            ]
        except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise TrainingError(
                f'{annotations}: cannot be read as COCO instances: {error!r}'
            ) from error
        order = np.random.default_rng(seed).permutation(len(rows))[:limit]
        self.rows = [rows[i] for i in order]
        if not self.rows:
            raise TrainingError(f'{annotations}: no image without the known classes is in it')
        missing = [r['file_name'] for r in self.rows if not (images / r['file_name']).is_file()]
        if missing:
            raise TrainingError(
                f'{images / missing[0]}: missing ({len(missing)} of {len(self.rows)} images are)'
            )

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, index: int) -> Array:
        """Return a whole image, alpha 255 where any instance is: uint8 (H, W, 4) RGBA."""
        row = self.rows[index]
        path = self.folder / row['file_name']
        image = read_image(path)
        if image.shape[:2] != (row['height'], row['width']):
            raise TrainingError(f'{path}: size differs from the annotations')
        mask = np.zeros(image.shape[:2], np.uint8)
        for item in self.coco.imgToAnns[row['id']]:
            mask |= self.coco.annToMask(item)
        return np.dstack([image, mask * 255])


def open_objects(text: str) -> Objects:
    """
    Open objects given as `coco:root` (annotations/, train2017/), or as cut-outs.

    Raises:
        TrainingError: no such path, an empty set, or broken annotations.

    """
    kind, colon, rest = text.partition(':')
    if not colon or kind != 'coco':
        return open_cut_outs(text)
    root = Path(rest).expanduser()
    if not root.is_dir():
        raise TrainingError(f'{root}: no such folder')
    return Coco(root / 'train2017', root / 'annotations' / 'instances_train2017.json')
