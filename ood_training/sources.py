# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Where frames come from: a name, a function that opens it; and the frames of a rosbag."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ood_evaluation.label_files import read_label
from ood_perception.bags import reading
from ood_perception.bags.files import pictures_in
from ood_perception.frames.decode import decode, stamp_ns, stored_values
from ood_perception.frames.intensity import Intensity
from ood_perception.frames.picture import BadImage
from ood_training.checkpointing import TrainingError
from ood_training.data import Frames
from ood_training.label_maps import LabelMap, load_label_map

APART = 300_000_000
"""Nanoseconds between two images of a topic that are taken; nearer ones are much the same."""
SAME = 1_000_000
"""Nanoseconds by which the stamps of an image and its label may differ."""
KINDS = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')


def folder(root: Path, split: str = '', label_map: LabelMap | None = None) -> Frames:
    """
    Pairs `images/X.*` and `labels/X.*` (also below `root/split`), matched by their stem.

    Without a folder `labels`, every pixel counts as known.
    """
    base = root / split if split else root
    images = _images(base / 'images' if (base / 'images').is_dir() else base)
    if not images:
        raise TrainingError(f'{base}: no images in it or in {base / "images"}')
    labels = base / 'labels'
    if not labels.is_dir():
        return Frames(images, [None] * len(images), load_label_map('normal'), str(root))
    if label_map is None:
        raise TrainingError(f'{base}: has labels, so it needs --label-map')
    return Frames(images, _partners(images, labels), label_map, str(root))


def camvid(root: Path, split: str = 'train', label_map: LabelMap | None = None) -> Frames:
    """CamVid's 11 classes: folders images and labels, or SegNet's `train` and `trainannot`."""
    label_map = label_map or load_label_map('camvid')
    if (root / f'{split}annot').is_dir():
        images = _images(root / split)
        labels = _partners(images, root / f'{split}annot')
        return Frames(images, labels, label_map, str(root), True)
    return dataclasses.replace(folder(root, '', label_map), noncommercial=True)


def cityscapes(root: Path, split: str = 'train', label_map: LabelMap | None = None) -> Frames:
    """Cityscapes fine: labelTrainIds where they were made, otherwise labelIds."""
    images = sorted((root / 'leftImg8bit' / split).glob('*/*_leftImg8bit.png'))
    if not images:
        raise TrainingError(f'{root}: no leftImg8bit/{split}/*/*_leftImg8bit.png')

    def label(image: Path, kind: str) -> Path:
        name = image.name.replace('_leftImg8bit.png', f'_gtFine_{kind}.png')
        return root / 'gtFine' / split / image.parent.name / name

    ready = label(images[0], 'labelTrainIds').is_file()
    kind = 'labelTrainIds' if ready else 'labelIds'
    label_map = label_map or load_label_map('cityscapes_trainids' if ready else 'cityscapes')
    labels = [label(image, kind) for image in images]
    if missing := [path for path in labels if not path.is_file()]:
        count = f'{len(missing)} of {len(labels)} labels are'
        raise TrainingError(f'{missing[0]}: missing ({count})')
    return Frames(images, labels, label_map, str(root), True)


def mapillary(root: Path, split: str = 'training', label_map: LabelMap | None = None) -> Frames:
    """Mapillary Vistas 1.2, 65 classes mapped to the 19 of Cityscapes."""
    split = {'train': 'training', 'val': 'validation'}.get(split, split)
    images = _images(root / split / 'images')
    folders = [root / split / 'v1.2' / 'labels', root / split / 'labels']
    labels = next((f for f in folders if f.is_dir()), folders[1])
    pairs = _partners(images, labels)
    return Frames(images, pairs, label_map or load_label_map('mapillary'), str(root), True)


def ade20k(root: Path, split: str = 'training', label_map: LabelMap | None = None) -> Frames:
    """ADE20K SceneParse150; class names from objectInfo150.txt where it lies in `root`."""
    split = {'train': 'training', 'val': 'validation'}.get(split, split)
    names = None
    info = root / 'objectInfo150.txt'
    if info.is_file():
        rows = info.read_text(encoding='utf-8').splitlines()[1:]
        names = [row.split('\t')[-1].split(',')[0].strip() for row in rows if row.strip()]
    images = _images(root / 'images' / split)
    pairs = _partners(images, root / 'annotations' / split)
    return Frames(images, pairs, label_map or load_label_map('ade20k', names), str(root), True)


def bag(root: Path, split: str = '', label_map: LabelMap | None = None) -> Frames:
    """
    Images of a rosbag, see :func:`extract`; `split` is `/topic`, `/topic+labels`, `+labels`.

    Without labels every pixel counts as known.
    """
    topic, _, labels = split.partition('+')
    frames = folder(extract(root, topic, labels), '', label_map if labels else None)
    return dataclasses.replace(frames, name=str(root))


FRAMES: dict[str, Callable[..., Frames]] = {
    'folder': folder,
    'camvid': camvid,
    'cityscapes': cityscapes,
    'mapillary': mapillary,
    'ade20k': ade20k,
    'bag': bag,
}
"""Name -> function (root, split, label_map) that opens frames."""


def open_frames(text: str, split: str, label_map: str = '') -> Frames:
    """
    Open frames given as `kind:path`, `kind:path@split`, or just a path.

    Raises:
        TrainingError: unknown kind, no such path, or what the kind's function refuses.
    """
    kind, colon, rest = text.partition(':')
    if not colon:
        kind, rest = 'folder', text
    if kind not in FRAMES:
        raise TrainingError(f'{text}: expected kind:path with kind one of {", ".join(FRAMES)}')
    path_text, _, chosen = rest.partition('@')
    path = Path(path_text).expanduser()
    if not path.exists():
        raise TrainingError(f'{path}: no such file or folder')
    chosen = chosen or ('' if kind in ('folder', 'bag') else split)
    return FRAMES[kind](path, chosen, load_label_map(label_map) if label_map else None)


def fingerprint(frames: Frames) -> str:
    """Short hash of the names of all images and labels, recorded with what was trained."""
    text = json.dumps([[p.name for p in frames.images], [str(p) for p in frames.labels]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _images(where: Path) -> list[Path]:
    if not where.is_dir():
        raise TrainingError(f'{where}: no such folder')
    return pictures_in(where)


def _partners(images: list[Path], labels: Path) -> list[Path]:
    """Label of each image: the same stem, any image ending but JPEG's."""
    if not labels.is_dir():
        raise TrainingError(f'{labels}: no such folder')
    by_stem = {p.stem: p for p in pictures_in(labels)}
    missing = [image for image in images if image.stem not in by_stem]
    if missing:
        raise TrainingError(
            f'{missing[0]}: has no label {missing[0].stem}.png in {labels} '
            f'({len(missing)} of {len(images)} images have none)'
        )
    return [by_stem[image.stem] for image in images]


def extract(root: Path, topic: str = '', labels: str = '') -> Path:
    """
    Write a bag's frames as PNG to a folder beside it, once.

    Args:
        root: of the bag.
        topic: of the images, '' = all topics of images (but the labels').
        labels: topic of label images (starting with a slash), or folder of label files whose
            names end in the image's stamp in nanoseconds; '' = none.

    Returns:
        Folder with `images/` and, where labels were asked for, `labels/`.

    Raises:
        TrainingError: no such bag, topic or folder, nothing in it, or no room to write to.
    """
    if not root.exists():
        raise TrainingError(f'{root}: no such bag')
    name = re.sub(r'\W+', '_', f'{root.stem}_frames{topic}_{Path(labels).name}').strip('_')
    target = root.with_name(name)
    if (target / 'complete').is_file():
        return target
    try:
        # What an interrupted run left behind may end in the middle of a file.
        shutil.rmtree(target, ignore_errors=True)
        for part in ('images', 'labels') if labels else ('images',):
            (target / part).mkdir(parents=True)
        partners = _label_files(root, labels) if labels else None
        count = 0
        for source in _topics(root, topic, labels):
            for stamp, image, label in _bag_images(root, source, partners):
                stem = f'{source.strip("/").replace("/", "_")}_{stamp}.png'
                Image.fromarray(image).save(target / 'images' / stem)
                if label is not None:
                    label = read_label(label) if isinstance(label, Path) else label
                    Image.fromarray(label).save(target / 'labels' / stem)
                count += 1
        if not count:
            what = f'no image has a label in {labels}' if labels else 'no images'
            raise TrainingError(f'{root}: {what}')
        (target / 'complete').touch()
    except (reading.BagError, OSError, ValueError) as error:
        raise TrainingError(f'{root}: cannot be read as training frames: {error}') from error
    return target


def _topics(root: Path, topic: str, labels: str) -> list[str]:
    known = [t.name for t in reading.topics(root) if t.type in KINDS]
    chosen = [t for t in known if (t == topic if topic else t != labels)]
    if not chosen:
        raise TrainingError(f'{root}: no image topic {topic}; it has {", ".join(known) or "none"}')
    return chosen


def _bag_images(
    root: Path, topic: str, labels: dict[int, Any] | None
) -> Iterator[tuple[int, np.ndarray, Any]]:
    """Stamps, uint8 (H, W, 3) images and labels of a topic; where there are any, with one only."""
    last, label, intensity = None, None, Intensity()
    for written, message in reading.read_topic(root, topic):
        stamp = stamp_ns(message.header) or written
        if last is not None and 0 <= stamp - last < APART:
            continue
        if labels is not None:
            nearest = stamp
            if stamp not in labels:
                nearest = min(labels, key=lambda other: abs(other - stamp), default=-2 * SAME)
            if abs(nearest - stamp) > SAME:
                continue
            label = labels[nearest]
        try:
            image = np.asarray(decode(message, intensity=intensity))
        except BadImage as error:
            raise TrainingError(f'{root}: {topic} at {stamp}: {error}') from error
        last = stamp
        yield stamp, image, label


def _label_files(root: Path, labels: str) -> dict[int, Any]:
    """Stamp in nanoseconds -> label: a file, or a message's array."""
    if labels.startswith('/') and not Path(labels).is_dir():
        return {
            stamp_ns(message.header) or written: stored_values(message)
            for written, message in reading.read_topic(root, labels)
        }
    folder = Path(labels)
    if not folder.is_dir():
        raise TrainingError(f'{folder}: no such folder of labels')
    found = {}
    for path in pictures_in(folder):
        if match := re.search(r'(\d{6,})$', path.stem):
            found[int(match[1])] = path
    if not found:
        raise TrainingError(f'{folder}: no file whose name ends in a stamp in nanoseconds')
    return found
