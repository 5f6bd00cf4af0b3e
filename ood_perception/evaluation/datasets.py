# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Data sets: where their files lie on disk, what their labels mean, where to get them.

Nothing is ever downloaded; a folder that lacks what a layout needs is an error that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ood_perception.bags.files import (
    SUFFIXES,
    in_step,
    natural,
    pictures_in,
    read_label,
    read_picture,
    shown,
    visible,
    with_any_suffix,
)
from ood_perception.evaluation.evaluator import Frame
from ood_perception.evaluation.labels import PLAIN, LabelValues
from ood_perception.frames.intensity import Intensity
from ood_perception.frames.picture import BadImage, orientation


class DatasetError(ValueError):
    """A folder is not the data set that it should be; the text says what is missing."""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk."""

    title: str  # for people
    where: str  # from where it is obtained
    labels: str  # pattern of its label files below the root
    # function of (root, label file) that gives the image's path without knowing whether it exists;
    # any picture suffix is tried
    image: Callable[[Path, Path], Path]
    # label value in the file -> 0, 1 or 255; None = as it is, others become 255
    values: Mapping[int, int] = field(default_factory=lambda: dict(PLAIN))
    track: str = 'anomaly'  # 'anomaly' or 'obstacle', sizes for its component metrics
    # whether labels may be of any kind of picture; of several of one name the one that fits the
    # pattern counts
    any_label: bool = False


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


def _cityscapes(root: Path, label: Path) -> Path:
    name = label.name.replace('gtFine_labelIds', 'leftImg8bit')
    return root / 'leftImg8bit' / label.parent.relative_to(root / 'gtFine') / name


def _beside(folder: str, images: str) -> Callable[[Path, Path], Path]:
    def image(root: Path, label: Path) -> Path:
        relative = label.relative_to(root / folder)
        return root / images / relative.with_suffix('.png')

    return image


SMIYC = 'https://segmentmeifyoucan.com/datasets'

DATASETS: dict[str, Layout] = {
    'pairs': Layout(
        'images/ and labels/ with the same names',
        'your own',
        'labels/**/*.png',
        _beside('labels', 'images'),
        any_label=True,
    ),
    'road_anomaly_jpg': Layout(
        'RoadAnomaly as RbA and others repack it: original/ and labels/ with the same names',
        'https://www.epfl.ch/labs/cvlab/data/road-anomaly/',
        'labels/**/*.png',
        _beside('labels', 'original'),
        {0: 0, 1: 1, 2: 1, 255: 255},
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
    'cityscapes': Layout(
        'Cityscapes layout with gtFine_labelIds of your own: 0 known, 1 unknown, 255 ignore',
        'your own',
        'gtFine/**/*_gtFine_labelIds.png',
        _cityscapes,
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
        {0: 255, **dict.fromkeys(range(1, 14), 0), 14: 1},
    ),
}
"""Name -> layout. Layouts were written from the data sets' descriptions."""


@dataclass(frozen=True)
class Dataset:
    """A data set found on disk."""

    layout: Layout  # of its files
    pairs: list[tuple[Path, Path]]  # (image, label) files in order of their names

    def __len__(self) -> int:
        return len(self.pairs)

    def frames(
        self,
        problems: Counter[str] | None = None,
        values: LabelValues | None = None,
        intensity: tuple[float, float] | None = None,
    ) -> Iterator[Frame]:
        """
        Frames with image and label, both upright.

        Args:
            problems: gets labels that cannot be read, and values that mean nothing.
            values: meaning of the labels' values, None for the layout's.
            intensity: (low, high) of images of more than 8 bits, None = estimated and held.
        """
        problems = Counter() if problems is None else problems
        values = LabelValues(self.layout.values) if values is None else values
        mapping = Intensity(intensity)
        for number, (image, label) in enumerate(self.pairs):
            frame = Frame(number * 10**9, shown(label.stem))
            frame.image = lambda image=image: read_picture(image, mapping).rgb  # type: ignore[misc]
            try:
                pixels = values(read_label(label), shown(label.name))
                frame.anomaly = _upright(pixels, image)
            except (BadImage, OSError) as error:
                problems[str(error)] += 1
            yield frame
        values.finish(problems)
        if self.layout.any_label:  # a benchmark's hidden test pictures have none
            used = {image for image, _ in self.pairs}
            folders = dict.fromkeys(image.parent for image in used)
            left = [p for folder in folders for p in pictures_in(folder) if p not in used]
            if left:
                problems[f'pictures without a label, first {shown(left[0])}'] += len(left)


def _upright(label: NDArray[np.uint8], image: Path) -> NDArray[np.uint8]:
    """Label of a picture that is shown upright, turned with it where it was drawn on its side."""
    data = image.read_bytes()
    turned = orientation(data)
    return label if turned == 1 else in_step(label, read_picture(image).rgb.shape, turned)


def open_dataset(name: str, root: str | Path) -> Dataset:
    """
    Find a data set's files.

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
    labels = _labels(root, layout)
    if not labels:
        inside = ', '.join(shown(path.name) for path in visible(root.iterdir())[:6])
        raise DatasetError(f'{root} has no {layout.labels}, but {inside or "nothing"} ({source})')
    pairs, missing = [], []
    for label in labels:
        wanted = layout.image(root, label)
        image = with_any_suffix(wanted)
        if image is None:
            missing.append(wanted)
        else:
            pairs.append((image, label))
    if missing:
        raise DatasetError(
            f'{shown(root)}: {len(missing)} of {len(labels)} labels have no image, first missing '
            f'{shown(missing[0])} or with another suffix ({source})'
        )
    return Dataset(layout, pairs)


def _labels(root: Path, layout: Layout) -> list[Path]:
    """Visible label files of a layout, whatever the case of their suffix."""
    pattern, dot, suffix = layout.labels.rpartition('.')
    cased = ''.join(f'[{c.lower()}{c.upper()}]' for c in suffix)
    found = visible(root.glob(f'{pattern}{dot}{cased}'), root)
    if layout.any_label:
        stems = {path.with_suffix('') for path in found}
        others = (p for p in root.glob(f'{pattern}.*') if p.suffix.lower() in SUFFIXES)
        found += visible((p for p in others if p.with_suffix('') not in stems), root)
        found.sort(key=natural)
    return found
