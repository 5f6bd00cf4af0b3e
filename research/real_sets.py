# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
What weights are chosen by: real unknown things in place, pasted ones, rendered drives.

None of it is trained on. The mean over the sets of the average precision picks the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ood_evaluation.pixel_metrics import PixelMetrics
from ood_perception.frames.transfer import network_size
from ood_perception.labels import Label, Truth, truth_of
from ood_perception.models.output import InputSpec
from ood_perception.scores.logits import LikelihoodRatio
from ood_training.recipes import paste
from ood_training.sources import open_frames
from research.cutouts import load_objects
from research.outlier_exposure import validation_set
from research.photographs import in_held_out_fifth, load, load_cutouts, read_index
from research.photometric import change_object

Array = np.ndarray
Pair = tuple[Array, Array]
"""image uint8 (H, W, 3) RGB, label uint8 (H, W): 0 known, 1 unknown, 255 ignored."""

DRIVE = '0016E5'
"""CamVid's drive that no training sees."""

IN_MEAN = ('dhcn_indoor', 'coco_context', 'pasted CamVid', 'pasted IDD', 'rendered')
"""Sets whose mean average precision picks the weights."""


def photographed(data: Path, rendered: Sequence[Pair] = ()) -> dict[str, list[Pair]]:
    """
    Make the sets that come from photographs.

    Args:
        data: folder that holds camvid_train, camvid_val, idd_lite, dhcn_indoor, coco_context,
            outliers_train and outliers_more; sets whose folder is missing are left out.
        rendered: frames of the rendered drives, added as their own set where there are any.

    Returns:
        Name -> pairs. Besides those of `IN_MEAN` 'large boxes': large boxy things pasted on both
        kinds of streets.

    """
    sets: dict[str, list[Pair]] = {}
    if (data / 'dhcn_indoor').is_dir():
        indoor = [p for p in read_index(data / 'dhcn_indoor') if p.split == 'val']
        sets['dhcn_indoor'] = as_unknown(load(indoor))
    if (data / 'coco_context').is_dir():
        fifth = [p for p in read_index(data / 'coco_context') if in_held_out_fifth(p.key)]
        pairs = as_unknown(load(fifth))
        sets['coco_context'] = [p for p in pairs if (p[1] != Truth.IGNORE).any()]
    objects = load_objects(data / 'outliers_train', held_out=True)
    streets = {'pasted CamVid': camvid_frames(data), 'pasted IDD': idd_frames(data)}
    streets = {name: frames for name, frames in streets.items() if frames}
    for name, frames in streets.items():
        sets[name] = validation_set(frames, objects)
    if rendered:
        sets['rendered'] = list(rendered)
    if (data / 'outliers_more').is_dir() and streets:
        boxes = load_cutouts(data / 'outliers_more', held_out=True)
        frames = [frame for found in streets.values() for frame in found[::4]]
        sets['large boxes'] = large_things(frames, boxes)
    return sets


def camvid_frames(data: Path) -> list[Pair]:
    """Every fourth frame of the held-out drive and every second of the validation split."""
    if not (data / 'camvid_train').is_dir():
        return []
    train = open_frames(f'camvid:{data / "camvid_train"}', 'train')
    val = open_frames(f'camvid:{data / "camvid_val"}', 'val')
    held = [i for i, path in enumerate(train.images) if path.name.startswith(DRIVE)]
    return [train.load(i) for i in held[::4]] + [val.load(i) for i in range(0, len(val), 2)]


def idd_frames(data: Path) -> list[Pair]:
    """IDD's validation frames, enlarged to 480x340."""
    if not (data / 'idd_lite').is_dir():
        return []
    pairs = load([p for p in read_index(data / 'idd_lite') if p.split == 'val'])
    return [
        (
            cv2.resize(image, (480, 340), interpolation=cv2.INTER_CUBIC),
            cv2.resize(label, (480, 340), interpolation=cv2.INTER_NEAREST),
        )
        for image, label in pairs
    ]


def large_things(frames: Sequence[Pair], objects: Sequence[Array], seed: int = 11) -> list[Pair]:
    """Paste one object of 100 to 330 pixels into each frame."""
    samples = []
    for number, (image, label) in enumerate(frames):
        rng = np.random.default_rng((seed, number))
        image, label = image.copy(), label.copy()
        rgba = change_object(rng, objects[int(rng.integers(len(objects)))], strong=False)
        paste(rng, image, label, rgba, Label.UNKNOWN, float(rng.uniform(100, 330)))
        samples.append((image, label))
    return as_unknown(samples)


def as_unknown(pairs: Sequence[Pair]) -> list[Pair]:
    """Turn training labels into 0 known, 1 unknown, 255 ignored."""
    return [(image, truth_of(label)) for image, label in pairs]


def drives(first: int, count: int, camera: tuple[int, int] = (640, 480)) -> Iterator[Pair]:
    """Render three frames of each of `count` drives from seed `first` on."""
    from ood_simulation.proving_ground import ProvingGround

    for seed in range(first, first + count):
        drive = ProvingGround(seed, *camera)
        for index in np.linspace(30, 590, 3).astype(int):
            frame = drive.frame(int(index))
            yield frame.image, frame.anomaly


class Scores:
    """
    The likelihood ratio of a model at the size at which the profile works.

    Args:
        model: a compact segmentor in evaluation mode.
        short_side: of the network's input in pixels.

    """

    def __init__(self, model: Any, short_side: int = 432) -> None:
        self.model, self.spec = model, cast(InputSpec, model.spec)
        self.score, self.short_side = LikelihoodRatio(exact=False), short_side
        self.mean, self.std = (
            torch.tensor(v).view(3, 1, 1) for v in (self.spec.mean, self.spec.std)
        )

    @torch.inference_mode()
    def __call__(self, image: Array) -> Array:
        """Image uint8 (H, W, 3) RGB -> float32 (H, W), nats, higher = more unknown."""
        height, width = image.shape[:2]
        size = network_size(height, width, self.short_side, 768, self.spec.multiple_of)
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        x = F.interpolate(x, size, mode='bilinear', antialias=True) / 255
        return self.score(self.model((x - self.mean) / self.std), (height, width))[0].numpy()


Scored = dict[str, tuple[list[Array], list[Array]]]
"""Set -> likelihood ratios float32 (h, w) and labels uint8 (h, w) of its frames."""


def score_sets(scores: Scores, sets: Mapping[str, Sequence[Pair]], most: int = 0) -> Scored:
    """
    Run a model on sets; every second pixel of every second row is kept.

    Args:
        scores: of the model.
        sets: name -> pairs.
        most: frames of each set, evenly chosen; 0 = all.

    """
    found: Scored = {}
    for name, pairs in sets.items():
        maps, labels = [], []
        count = min(most or len(pairs), len(pairs))
        for index in np.unique(np.linspace(0, len(pairs) - 1, count).astype(int)):
            image, label = pairs[index]
            maps.append(scores(image)[1::2, 1::2])
            labels.append(label[1::2, 1::2])
        found[name] = maps, labels
    return found


def numbers(scored: Scored) -> dict[str, dict[str, float]]:
    """Set -> {'ap', 'fpr95', 'auroc', 'frames'}."""
    found = {}
    for name, (maps, labels) in scored.items():
        metric: Any = PixelMetrics()
        for score, label in zip(maps, labels, strict=True):
            metric.update(score, label)
        values = metric.compute()
        found[name] = {k: float(values[k]) for k in ('ap', 'fpr95', 'auroc', 'frames')}
    return found


def mean_ap(measured: Mapping[str, Mapping[str, float]]) -> float:
    """Mean average precision over those sets of `IN_MEAN` that were measured."""
    values = [measured[name]['ap'] for name in IN_MEAN if name in measured]
    return sum(values) / len(values)
