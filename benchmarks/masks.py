# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Compare prompt generators and mask models on scenes with known objects: quality beside CPU time.

    python benchmarks/masks.py --data ../shared/data --profile compact --output masks.csv
    python benchmarks/masks.py --source proving_ground --profile compact --output masks.csv

Without --profile the score maps are spoilt truth (research.score_scenes.spoil). Times are of one
thread's CPU, so other work on the machine disturbs them little. Held-out objects on frames of a
held-out drive; proving ground seeds from 9000 on.

Mean F1 is S2M's: at thresholds 0, 0.01 .. 1 the F1 of each image, averaged over the images. For
the union of masks the thresholds apply to the fused scores as they are; for the score map itself
they run from its least to its largest value over the whole set (S2M, eq. 8). Columns: mean_f1 over
all thresholds, best_f1 at the one threshold that is best for the whole set, image_f1 at the
threshold that is best for each image (nobody could choose it). The prompts `truth` are the true
boxes: what any better prompts could gain at most. Small objects are COCO's, below
32 x 32 pixels of area; `found` counts by sIoU >= 0.25, the recalls by IoU >= --least. The
mask_model `threshold` has no prompts: its objects are the components of {score > that threshold}.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkout  # noqa: F401
import cv2
import numpy as np
import torch
from s2m_metrics import THRESHOLDS, S2MMetrics
from table import append

from ood_perception.masks import create_mask_model, create_prompts, fuse
from ood_perception.masks.boxes import Boxes
from ood_perception.masks.fusion import Instances
from research.mask_validation import LEAST_AREA, Tally
from research.score_scenes import (
    Scene,
    compose,
    load_frames,
    load_objects,
    spoil,
)

TRUTH = 'truth'
"""Name of the true boxes among the prompts."""

FIELDS = (
    'source', 'profile', 'prompts', 'mask_model', 'scenes', 'objects', 'found', 'box_recall',
    'box_precision', 'small_objects', 'small_found', 'small_recall', 'small_mask_recall',
    'matched_iou', 'mask_iou_all', 'component_f1', 'mean_f1', 'best_f1', 'image_f1', 'union_iou',
    'mean_f1_coded', 'auiou_coded', 'network_ms', 'prompts_ms', 'masks_ms', 'fuse_ms', 'share',
    'command',
)  # fmt: skip


@dataclass
class Sample:
    """A scene, its raw score (H, W), what is to be ignored, and the CPU time of the network."""

    scene: Scene
    score: np.ndarray
    ignore: np.ndarray
    seconds: float

    def label(self) -> np.ndarray:
        """0 known, 1 unknown, 255 ignore."""
        return np.where(self.ignore, 255, self.scene.labels > 0).astype(np.uint8)


def pictures(options: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield image, labels (0 known, 1..N), ignore (bool)."""
    if options.source == 'proving_ground':
        from ood_simulation.proving_ground import ProvingGround

        for index in range(options.scenes):
            frame = ProvingGround(options.seed + index, 480, 360).frame(60)
            ids = np.unique(frame.instances[frame.instances > 0])
            labels = np.zeros(frame.instances.shape, np.uint8)
            for number, value in enumerate(ids[:250], 1):
                labels[frame.instances == value] = number
            yield frame.image, labels, frame.anomaly == 255
        return
    frames = load_frames(options.data / 'camvid_val')
    objects = load_objects(options.data / 'outliers_train', held_out=True)
    rng = np.random.default_rng(options.seed)
    for _ in range(options.scenes):
        image, labels = compose(frames[int(rng.integers(len(frames)))], objects, rng)
        yield image, labels, np.zeros(labels.shape, bool)


def samples(options: argparse.Namespace) -> list[Sample]:
    """Scenes with the score that the profile's network gives them."""
    pipeline = None
    if options.profile:
        from ood_perception.pipeline import Pipeline

        pipeline = Pipeline.from_profile(options.profile, device='cpu')
        pipeline.warm_up([(360, 480)])
    rng = np.random.default_rng(options.seed + 1)
    found = []
    for image, labels, ignore in pictures(options):
        begin = time.process_time()
        if pipeline is None:
            probability = spoil(labels, rng)
            score = np.log(probability / (1 - probability)).astype(np.float32)
        else:
            (result,) = pipeline(image, wants=('score',))
            score = result.score
            probability = pipeline.calibration(torch.from_numpy(score)).numpy()
        seconds = time.process_time() - begin
        scene = Scene(image, labels, probability.astype(np.float32))
        found.append(Sample(scene, score, ignore, seconds))
    return found


def curves(maps: list[np.ndarray], data: list[Sample]) -> tuple[np.ndarray, S2MMetrics]:
    """F1 (images, 101) of {map > t} where something is to be found, and all of S2M's figures."""
    metrics, rows = S2MMetrics(), []
    for map_, sample in zip(maps, data, strict=True):
        label = sample.label()
        metrics.update(map_, label)
        if not (label == 1).any():
            continue
        known, unknown = (np.sort(map_[label == value]) for value in (0, 1))
        hits = len(unknown) - np.searchsorted(unknown, THRESHOLDS, side='right')
        marked = hits + len(known) - np.searchsorted(known, THRESHOLDS, side='right')
        rows.append(2 * hits / np.maximum(marked + len(unknown), 1))
    return np.array(rows), metrics


def figures(maps: list[np.ndarray], data: list[Sample]) -> dict[str, float]:
    """The columns of a map: union of masks, or a scaled score."""
    f1, metrics = curves(maps, data)
    numbers = metrics.compute()
    return {
        'mean_f1': float(f1.mean()),
        'best_f1': float(f1.mean(0).max()),
        'image_f1': float(f1.max(1).mean()),
        'union_iou': numbers['iou_corrected'],
        'mean_f1_coded': numbers['mean_f1'],
        'auiou_coded': numbers['auiou'],
    }


def union_map(masks: torch.Tensor, confidences: torch.Tensor) -> torch.Tensor:
    """
    S2M's fused map (section 3.3): masks painted in descending order of confidence.

    Args:
        masks: bool (K, H, W), in descending order of `confidences`.
        confidences: float32 (K,), 0..1.

    Returns:
        float32 (H, W): the lowest confidence of the masks that cover a pixel, 0 where none does.

    """
    out = confidences.new_zeros(masks.shape[1:])
    for mask, confidence in zip(masks, confidences, strict=True):
        out[mask] = confidence
    return out


def true_boxes(scene: Scene) -> Boxes:
    """Prompts around the objects that are asked for, see `TRUTH`."""
    boxes = torch.from_numpy(scene.boxes(LEAST_AREA))[None]
    sure = torch.ones(boxes.shape[:2])
    return Boxes(boxes, sure, sure.bool())


def measure(data: list[Sample], prompts: str, mask_model: str, args: Any) -> dict[str, float]:
    """Run one pair over the scenes."""
    propose = None if prompts == TRUTH else create_prompts(prompts, **args.prompt_options)
    outline = create_mask_model(mask_model, **args.mask_model_options)
    spent = np.zeros(3)
    tally, maps = Tally(args.least), []
    for sample in data:
        image = torch.from_numpy(sample.scene.image).permute(2, 0, 1)
        s, p = torch.from_numpy(sample.score), torch.from_numpy(sample.scene.probability)
        marks = [time.process_time()]
        boxes = propose(image[None], s[None], p[None]) if propose else true_boxes(sample.scene)
        slots = boxes.valid[0]
        marks.append(time.process_time())
        (logits,) = outline(image[None], p[None], boxes.boxes[:, slots])
        marks.append(time.process_time())
        found = fuse(logits, boxes.confidences[0][slots], slots[slots], s)
        marks.append(time.process_time())
        spent += np.diff(marks)
        tally.add(sample.scene.labels, found, boxes.boxes[0][slots], sample.ignore)
        maps.append(union_map(logits > 0, boxes.confidences[0][slots]).numpy())
    network = sum(sample.seconds for sample in data)
    return {
        **tally.numbers(),
        **figures(maps, data),
        **dict(zip(('prompts_ms', 'masks_ms', 'fuse_ms'), 1e3 * spent / len(data), strict=True)),
        'share': float(spent.sum() / (spent.sum() + network)),
    }


def threshold(data: list[Sample], scale: str, iou: float) -> dict[str, float]:
    """
    The score without S2M: `scale` raw (least to largest value of the set) or probability.

    Objects are components of at least 16 pixels at the one threshold with the best mean F1.
    """
    maps = [sample.scene.probability.astype(np.float64) for sample in data]
    if scale == 'raw':
        least = min(float(sample.score.min()) for sample in data)
        most = max(float(sample.score.max()) for sample in data)
        maps = [(sample.score.astype(np.float64) - least) / (most - least) for sample in data]
    level = THRESHOLDS[curves(maps, data)[0].mean(0).argmax()]
    tally = Tally(iou)
    for map_, sample in zip(maps, data, strict=True):
        count, labels, stats, _ = cv2.connectedComponentsWithStats((map_ > level).astype(np.uint8))
        keep = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= 16]
        lookup = np.zeros(count, np.int32)
        lookup[keep] = np.arange(1, len(keep) + 1)
        x, y, w, h = (stats[keep, i] for i in range(4))
        boxes = torch.from_numpy(np.stack([x, y, x + w, y + h], 1)).float()
        nothing = torch.zeros(0)
        found = Instances(
            torch.from_numpy(lookup[labels]),
            torch.arange(1, len(keep) + 1),
            *(nothing,) * 5,
        )
        tally.add(sample.scene.labels, found, boxes, sample.ignore)
    return {**tally.numbers(), **figures(maps, data), 'threshold': float(level)}


def main() -> None:
    """Parse, measure, print, append to the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--source', choices=('camvid', 'proving_ground'), default='camvid')
    parser.add_argument('--profile', default='', help='whose score to use; default: spoilt truth')
    parser.add_argument('--prompts', default='score_detector,components')
    parser.add_argument('--prompt-options', type=json.loads, default={}, help='JSON, of all')
    parser.add_argument('--mask-models', default='compact')
    parser.add_argument('--mask-model-options', type=json.loads, default={}, help='JSON, of all')
    parser.add_argument('--scenes', type=int, default=100)
    parser.add_argument('--seed', type=int, default=9000)
    parser.add_argument('--least', type=float, default=0.5, help='IoU from which objects match')
    parser.add_argument('--output', type=Path, help='CSV to append to')
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = samples(options)
    network = 1e3 * sum(sample.seconds for sample in data) / len(data)
    head = {
        'source': options.source,
        'profile': options.profile or 'spoilt truth',
        'scenes': len(data),
        'network_ms': network,
        'command': shlex.join(['python', *sys.argv]),
    }
    rows = []

    def tell(prompts: str, mask_model: str, row: dict[str, float]) -> None:
        rows.append({**head, 'prompts': prompts, 'mask_model': mask_model, **row})
        text = (f'{k} {v:.3f}' if isinstance(v, float) else f'{k} {v}' for k, v in row.items())
        print(f'{prompts} + {mask_model}:', ', '.join(text), flush=True)

    for scale in ('raw', 'probability'):
        tell('', f'threshold ({scale})', threshold(data, scale, options.least))
    for prompts in options.prompts.split(','):
        for mask_model in options.mask_models.split(','):
            tell(prompts, mask_model, measure(data, prompts, mask_model, options))
    if options.output:
        append(options.output, FIELDS, rows)


if __name__ == '__main__':
    main()
