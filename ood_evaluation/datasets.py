# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Data sets: where their files lie on disk, what their labels mean, where to get them.

Nothing is ever downloaded; a folder that lacks what a layout needs is an error that says so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ood_evaluation.frame import Frame
from ood_evaluation.label_files import in_step, read_label, with_any_suffix
from ood_evaluation.labels import PLAIN, DatasetError, LabelValues
from ood_perception.bags.files import (
    SUFFIXES,
    natural,
    pictures_in,
    read_picture,
    shown,
    visible,
)
from ood_perception.frames.intensity import Intensity
from ood_perception.frames.picture import BadImage, orientation


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk."""

    title: str  # for people
    where: str  # from where it is obtained
    labels: str  # pattern of its label files below the root
    # regular expression in a label's path below the root, and what it is replaced by to give the
    # image's; any picture suffix is tried, and * stands for folders that are not known
    image: tuple[str, str]
    # label value in the file -> 0, 1 or 255; others become 255
    values: Mapping[int, int] = field(default_factory=lambda: PLAIN)
    track: str = 'anomaly'  # 'anomaly' or 'obstacle', sizes for its component metrics
    # whether labels may be of any kind of picture; of several of one name the one that fits the
    # pattern counts
    any_label: bool = False


SMIYC = 'https://segmentmeifyoucan.com/datasets'
SMIYC_LABELS = 'labels_masks/*_labels_semantic.png'
SMIYC_IMAGES = (r'labels_masks/(.*)_labels_semantic\.png', r'images/\1.jpg')
ROAD_ANOMALY = 'https://www.epfl.ch/labs/cvlab/data/road-anomaly/'
ROAD_ANOMALY_VALUES = {0: 0, 1: 1, 2: 1, 255: 255}

DATASETS: dict[str, Layout] = {
    'pairs': Layout(
        'images/ and labels/ with the same names',
        'your own',
        'labels/**/*.png',
        (r'^labels/(.*)\.\w+$', r'images/\1.png'),
        any_label=True,
    ),
    'road_anomaly_jpg': Layout(
        'RoadAnomaly as RbA and others repack it: original/ and labels/ with the same names',
        ROAD_ANOMALY,
        'labels/**/*.png',
        ('^labels/', 'original/'),
        ROAD_ANOMALY_VALUES,
    ),
    'road_anomaly': Layout(
        'RoadAnomaly (Lis et al.)',
        ROAD_ANOMALY,
        'frames/*.labels/labels_semantic.png',
        (r'\.labels/labels_semantic\.png$', '.jpg'),
        ROAD_ANOMALY_VALUES,
    ),
    'smiyc_anomaly': Layout('SegmentMeIfYouCan AnomalyTrack', SMIYC, SMIYC_LABELS, SMIYC_IMAGES),
    'smiyc_obstacle': Layout(
        'SegmentMeIfYouCan ObstacleTrack', SMIYC, SMIYC_LABELS, SMIYC_IMAGES, track='obstacle'
    ),
    'fishyscapes_laf': Layout(
        'Fishyscapes Lost and Found (labels) over Lost and Found (images in leftImg8bit/)',
        'https://fishyscapes.com/dataset and http://www.6d-vision.com/lostandfounddataset',
        '**/*_labels.png',
        # 0000_04_Maurener_Weg_8_000000_000030_labels.png: a number before the image's own name
        (r'^(?:.*/)?.{5}([^/]*)labels\.png$', r'**/leftImg8bit/**/\1leftImg8bit.png'),
        track='obstacle',
    ),
    'fishyscapes_static': Layout(
        'Fishyscapes Static, made with its own tool: NAME_rgb.* beside NAME_labels.png',
        'https://fishyscapes.com/dataset',
        '**/*_labels.png',
        (r'_labels\.png$', '_rgb.png'),
    ),
    'cityscapes': Layout(
        'Cityscapes layout with gtFine_labelIds of your own: 0 known, 1 unknown, 255 ignore',
        'your own',
        'gtFine/**/*_gtFine_labelIds.png',
        ('^gtFine/(.*)gtFine_labelIds', r'leftImg8bit/\1leftImg8bit'),
    ),
    'lost_and_found': Layout(
        'Lost and Found test',
        'http://www.6d-vision.com/lostandfounddataset',
        'gtCoarse/test/**/*_gtCoarse_labelIds.png',
        ('^gtCoarse/(.*)gtCoarse_labelIds', r'leftImg8bit/\1leftImg8bit'),
        {0: 255, 1: 0, **dict.fromkeys(range(2, 201), 1)},
        'obstacle',
    ),
    'ade_ood': Layout(
        'ADE-OoD: images/ and annotations/ with the same names',
        'https://ade-ood.github.io',
        'annotations/**/*.png',
        ('^annotations/', 'images/'),
    ),
    'street_hazards': Layout(
        'StreetHazards test (label 14 = anomaly)',
        'https://github.com/hendrycks/anomaly-seg',
        'annotations/test/**/*.png',
        ('^annotations/', 'images/'),
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
        own, replacement = layout.image
        path = re.sub(own, replacement, label.relative_to(root).as_posix(), flags=re.IGNORECASE)
        wanted = root / path.replace('**/', '')
        if '*' in replacement:
            wanted = next(root.glob(path), wanted)
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
