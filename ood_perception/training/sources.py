# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Where frames and unknown objects come from: a name, a function that opens it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from ood_perception.bags.files import pictures_in
from ood_perception.training.bag_frames import extract
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.data import Frames
from ood_perception.training.label_maps import LabelMap, load_label_map


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
    frames = folder(root, '', label_map)
    return Frames(frames.images, frames.labels, frames.label_map, str(root), True)


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
    Images of a rosbag, see `bag_frames.extract`; `split` is `/topic`, `/topic+labels`, `+labels`.

    Without labels every pixel counts as known.
    """
    topic, _, labels = split.partition('+')
    frames = folder(extract(root, topic, labels), '', label_map if labels else None)
    return Frames(frames.images, frames.labels, frames.label_map, str(root))


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
