# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Frames of a rosbag as a folder of images, with labels of a topic or of a folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ood_perception.bags import reading as bag
from ood_perception.bags.files import pictures_in, read_label
from ood_perception.frames.decode import decode, stamp_ns, stored_values
from ood_perception.frames.intensity import Intensity
from ood_perception.frames.picture import BadImage
from ood_perception.training.checkpointing import TrainingError

APART = 300_000_000
"""Nanoseconds between two images of a topic that are taken; nearer ones are much the same."""
SAME = 1_000_000
"""Nanoseconds by which the stamps of an image and its label may differ."""
KINDS = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')


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
        partners = _label_files(root, labels) if labels else {}
        count = 0
        for source in _topics(root, topic, labels):
            for stamp, image in _images(root, source, partners if labels else None):
                stem = f'{source.strip("/").replace("/", "_")}_{stamp}.png'
                Image.fromarray(image).save(target / 'images' / stem)
                if labels:
                    label = partners[_nearest(partners, stamp)]
                    label = read_label(label) if isinstance(label, Path) else label
                    Image.fromarray(label).save(target / 'labels' / stem)
                count += 1
        if not count:
            what = f'no image has a label in {labels}' if labels else 'no images'
            raise TrainingError(f'{root}: {what}')
        (target / 'complete').touch()
    except (bag.BagError, OSError, ValueError) as error:
        raise TrainingError(f'{root}: cannot be read as training frames: {error}') from error
    return target


def _topics(root: Path, topic: str, labels: str) -> list[str]:
    known = [t.name for t in bag.topics(root) if t.type in KINDS]
    chosen = [t for t in known if (t == topic if topic else t != labels)]
    if not chosen:
        raise TrainingError(f'{root}: no image topic {topic}; it has {", ".join(known) or "none"}')
    return chosen


def _images(
    root: Path, topic: str, partners: dict[int, Any] | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Stamps and uint8 (H, W, 3) images of a topic, only those with a label where they are."""
    last = None
    intensity = Intensity()
    for written, message in bag.read_topic(root, topic):
        stamp = stamp_ns(message.header) or written
        if last is not None and 0 <= stamp - last < APART:
            continue
        if partners is not None and _nearest(partners, stamp) is None:
            continue
        try:
            image = np.asarray(decode(message, intensity=intensity))
        except BadImage as error:
            raise TrainingError(f'{root}: {topic} at {stamp}: {error}') from error
        last = stamp
        yield stamp, image


def _label_files(root: Path, labels: str) -> dict[int, Any]:
    """Stamp in nanoseconds -> label: a file, or a message's array."""
    if labels.startswith('/') and not Path(labels).is_dir():
        return {
            stamp_ns(message.header) or written: stored_values(message)
            for written, message in bag.read_topic(root, labels)
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


def _nearest(partners: dict[int, Any], stamp: int) -> Any:
    """Key of the label that belongs to an image, None where there is none."""
    if stamp in partners:
        return stamp
    best = min(partners, key=lambda other: abs(other - stamp), default=None)
    return best if best is not None and abs(best - stamp) <= SAME else None
