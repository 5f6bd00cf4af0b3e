# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Data sets: where their files lie on disk, what their labels mean, where to get them.

Nothing is ever downloaded; a folder that lacks what a layout needs is an error that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ood_perception.evaluation.evaluator import Frame
from ood_perception.evaluation.pixel_metrics import IGNORE

PICTURES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')


class DatasetError(ValueError):
    """A folder is not the data set that it should be; the text says what is missing."""


@dataclass(frozen=True)
class Layout:
    """
    How a data set lies on disk.

    Attributes:
        title: for people.
        where: from where it is obtained.
        labels: pattern of its label files below the root.
        image: function of (root, label file) that gives the image's path without knowing whether
            it exists; any picture suffix is tried.
        values: label value in the file -> 0, 1 or 255; None = as it is, others become 255.
        track: 'anomaly' or 'obstacle', sizes for its component metrics.

    """

    title: str
    where: str
    labels: str
    image: Callable[[Path, Path], Path]
    values: Mapping[int, int] = field(default_factory=lambda: {0: 0, 1: 1, 255: 255})
    track: str = 'anomaly'


def _smiyc(root: Path, label: Path) -> Path:
    return root / 'images' / label.name.replace('_labels_semantic.png', '.jpg')


def _fishyscapes(root: Path, label: Path) -> Path:
    # 0000_04_Maurener_Weg_8_000000_000030_labels.png: a number before, _labels.png behind.
    name = label.name[5:-10] + 'leftImg8bit.png'
    found = next(root.glob(f'**/leftImg8bit/**/{name}'), None)
    return found or root / 'leftImg8bit' / name


def _lost_and_found(root: Path, label: Path) -> Path:
    name = label.name.replace('gtCoarse_labelIds', 'leftImg8bit')
    return Path(str(label.parent).replace('gtCoarse', 'leftImg8bit')) / name


def _beside(folder: str, images: str, ending: str = '') -> Callable[[Path, Path], Path]:
    def image(root: Path, label: Path) -> Path:
        relative = label.relative_to(root / folder)
        return root / images / relative.with_name(relative.stem.removesuffix(ending) + '.png')

    return image


SMIYC = 'https://segmentmeifyoucan.com/datasets'

DATASETS: dict[str, Layout] = {
    'pairs': Layout(
        'images/ and labels/ with the same names',
        'your own',
        'labels/**/*.png',
        _beside('labels', 'images'),
    ),
    'road_anomaly': Layout(
        'RoadAnomaly (Lis et al.)',
        'https://www.epfl.ch/labs/cvlab/data/road-anomaly/',
        'frames/*.labels/labels_semantic.png',
        lambda root, label: root / 'frames' / (label.parent.name.removesuffix('.labels') + '.jpg'),
        {0: 0, 1: 1, 2: 1, 255: 255},
    ),
    'smiyc_anomaly': Layout(
        'SegmentMeIfYouCan AnomalyTrack', SMIYC, 'labels_masks/*_labels_semantic.png', _smiyc
    ),
    'smiyc_obstacle': Layout(
        'SegmentMeIfYouCan ObstacleTrack',
        SMIYC,
        'labels_masks/*_labels_semantic.png',
        _smiyc,
        track='obstacle',
    ),
    'fishyscapes_laf': Layout(
        'Fishyscapes Lost and Found (labels) over Lost and Found (images in leftImg8bit/)',
        'https://fishyscapes.com/dataset and http://www.6d-vision.com/lostandfounddataset',
        '**/*_labels.png',
        _fishyscapes,
        track='obstacle',
    ),
    'fishyscapes_static': Layout(
        'Fishyscapes Static, made with its own tool: NAME_rgb.* beside NAME_labels.png',
        'https://fishyscapes.com/dataset',
        '**/*_labels.png',
        lambda root, label: label.with_name(label.name.replace('_labels.png', '_rgb.png')),
    ),
    'lost_and_found': Layout(
        'Lost and Found test',
        'http://www.6d-vision.com/lostandfounddataset',
        'gtCoarse/test/**/*_gtCoarse_labelIds.png',
        _lost_and_found,
        {0: 255, 1: 0, **dict.fromkeys(range(2, 201), 1)},
        'obstacle',
    ),
    'ade_ood': Layout(
        'ADE-OoD: images/ and annotations/ with the same names',
        'https://ade-ood.github.io',
        'annotations/**/*.png',
        _beside('annotations', 'images'),
    ),
    'street_hazards': Layout(
        'StreetHazards test (label 14 = anomaly)',
        'https://github.com/hendrycks/anomaly-seg',
        'annotations/test/**/*.png',
        _beside('annotations', 'images'),
        {**dict.fromkeys(range(1, 14), 0), 14: 1},
    ),
}
"""Name -> layout. Layouts were written from the data sets' descriptions."""


@dataclass(frozen=True)
class Dataset:
    """
    A data set found on disk.

    Attributes:
        layout: of its files.
        pairs: (image, label) files in order of their names.

    """

    layout: Layout
    pairs: list[tuple[Path, Path]]

    def __len__(self) -> int:
        return len(self.pairs)

    def frames(self, problems: Any = None) -> Iterator[Frame]:
        """Frames with image and label; unreadable labels are counted in `problems`."""
        for number, (image, label) in enumerate(self.pairs):
            frame = Frame(number * 10**9, label.stem)
            frame.image = lambda image=image: read_image(image)  # type: ignore[misc]
            try:
                frame.anomaly = read_label(label, self.layout.values)
            except DatasetError as error:
                if problems is not None:
                    problems[str(error)] += 1
            yield frame


def open_dataset(name: str, root: str | Path) -> Dataset:
    """
    Find a data set's files.

    Args:
        name: entry of `DATASETS`.
        root: its folder.

    Raises:
        DatasetError: unknown name, no such folder, no labels, or labels without images; the text
            says what is missing and where the data set is obtained.

    """
    if name not in DATASETS:
        raise DatasetError(f'data set: expected one of {", ".join(DATASETS)}, got {name!r}')
    layout, root = DATASETS[name], Path(root)
    source = f'{layout.title}; obtained from {layout.where}'
    if not root.is_dir():
        raise DatasetError(f'no folder {root} ({source})')
    labels = sorted(root.glob(layout.labels))
    if not labels:
        raise DatasetError(f'{root} has no {layout.labels} ({source})')
    pairs, missing = [], []
    for label in labels:
        wanted = layout.image(root, label)
        image = next((p for s in PICTURES if (p := wanted.with_suffix(s)).is_file()), None)
        if image is None:
            missing.append(wanted)
        else:
            pairs.append((image, label))
    if missing:
        raise DatasetError(
            f'{root}: {len(missing)} of {len(labels)} labels have no image, first missing '
            f'{missing[0]} ({source})'
        )
    return Dataset(layout, pairs)


def read_label(path: Path, values: Mapping[int, int]) -> NDArray[np.uint8]:
    """Label file as 0, 1, 255; of a colour file the first channel. Raises DatasetError."""
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DatasetError(f'{path} cannot be read as an image')
    if pixels.ndim == 3:
        pixels = pixels[..., 2]  # OpenCV's order is blue, green, red
    table = np.full(1 << 16, IGNORE, np.uint8)
    for value, meaning in values.items():
        table[value] = meaning
    return table[pixels]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Picture as uint8 (H, W, 3) RGB. Raises DatasetError."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f'{path} cannot be read as an image')
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
