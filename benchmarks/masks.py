# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Compare prompt generators and segmenters on scenes with known objects: quality beside CPU time.

    python benchmarks/masks.py --data ../shared/data --profile compact
    python benchmarks/masks.py --source proving_ground --profile compact

Without --profile the score maps are spoilt truth (training.score_scenes.spoil). Times are of one
thread's CPU, so other work on the machine disturbs them little. Held-out objects on frames of a
held-out drive; proving ground seeds from 9000 on.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from ood_perception.masks import create_prompts, create_segmenter, fuse
from ood_perception.training.score_scenes import (
    Scene,
    compose,
    load_frames,
    load_objects,
    spoil,
)

THRESHOLDS = np.arange(0, 1.01, 0.01)
FIELDS = (
    'source',
    'profile',
    'prompts',
    'segmenter',
    'scenes',
    'objects',
    'box_recall',
    'box_precision',
    'small_objects',
    'small_recall',
    'matched_iou',
    'mask_iou_all',
    'component_f1',
    'union_f1',
    's2m_mean_f1',
    'threshold_best_f1',
    'threshold_mean_f1',
    'prompts_ms',
    'masks_ms',
    'fuse_ms',
)


def pictures(options: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield image, labels (0 known, 1..N), ignore (bool)."""
    if options.source == 'proving_ground':
        from ood_perception.simulation.proving_ground import ProvingGround

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


def scenes(options: argparse.Namespace) -> list[tuple[Scene, np.ndarray, np.ndarray]]:
    """Scenes with the raw score (H, W) and the pixels to be ignored."""
    pipeline = None
    if options.profile:
        from ood_perception.pipeline import Pipeline

        pipeline = Pipeline.from_profile(options.profile, device='cpu')
        pipeline.warm_up([(360, 480)])
    rng = np.random.default_rng(options.seed + 1)
    found = []
    for image, labels, ignore in pictures(options):
        if pipeline is None:
            probability = spoil(labels, rng)
            score = np.log(probability / (1 - probability)).astype(np.float32)
        else:
            (result,) = pipeline(image, wants=('score',))
            score = result.score
            probability = pipeline.calibration(torch.from_numpy(score)).numpy()
        found.append((Scene(image, labels, probability.astype(np.float32)), score, ignore))
    return found


def iou_matrix(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
    if not a or not b:
        return np.zeros((len(a), len(b)))
    x = np.stack(a).reshape(len(a), -1).astype(np.float32)
    y = np.stack(b).reshape(len(b), -1).astype(np.float32)
    common = x @ y.T
    return common / np.maximum(x.sum(1)[:, None] + y.sum(1)[None] - common, 1)


def match(iou: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Greedy pairs, largest first."""
    iou, pairs = iou.copy(), []
    while iou.size and iou.max() >= least:
        pair = np.unravel_index(iou.argmax(), iou.shape)
        pairs.append((int(pair[0]), int(pair[1])))
        iou[pair[0]], iou[:, pair[1]] = -1, -1
    return pairs


def curve(map_: np.ndarray, truth: np.ndarray, ignore: np.ndarray) -> np.ndarray:
    """F1 of {map > t} for 101 thresholds 0..1, by histogram; 0 where nothing is there."""
    bins = np.ceil(map_[~ignore].clip(0, 1) * 100 - 1e-6).astype(int)
    hit = np.bincount(bins, truth[~ignore], 101)
    all_ = np.bincount(bins, minlength=101)
    # map > t / 100 holds for bins t + 1 .. 100
    above = np.append(hit[::-1].cumsum()[::-1][1:], 0)
    marked = np.append(all_[::-1].cumsum()[::-1][1:], 0)
    return 2 * above / np.maximum(marked + truth[~ignore].sum(), 1)


def measure(
    data: list[tuple[Scene, np.ndarray, np.ndarray]], prompts: str, segmenter: str, least: float
) -> dict[str, float]:
    propose, outline = create_prompts(prompts), create_segmenter(segmenter)
    spent = dict.fromkeys(('prompts_ms', 'masks_ms', 'fuse_ms'), 0.0)
    total = dict.fromkeys(
        ('objects', 'boxes', 'hit_boxes', 'small', 'small_hit', 'tp', 'fp', 'fn'), 0
    )
    matched, every, curves = [], [], []
    for scene, score, ignore in data:
        image = torch.from_numpy(scene.image)
        s, p = torch.from_numpy(score), torch.from_numpy(scene.probability)
        begin = time.process_time()
        boxes = propose(s[None], p[None])
        spent['prompts_ms'] += time.process_time() - begin
        slots = boxes.valid[0]
        begin = time.process_time()
        outline.set_frame(image, s, p)
        logits = outline.masks(boxes.boxes[0][slots])
        spent['masks_ms'] += time.process_time() - begin
        begin = time.process_time()
        result = fuse(logits, boxes.scores[0][slots], slots[slots], s)
        spent['fuse_ms'] += time.process_time() - begin
        truth = [scene.labels == i for i in np.unique(scene.labels[scene.labels > 0])]
        truth = [mask for mask in truth if mask.sum() >= 40]
        labels = np.where(ignore, 0, result.labels.numpy())
        found = [labels == i for i in result.ids.tolist()]
        iou = iou_matrix(truth, found)
        pairs = match(iou, 0.5)
        loose = match(iou, least)
        matched += [iou[pair] for pair in loose]
        every += [iou[i].max() if iou.shape[1] else 0.0 for i in range(len(truth))]
        total['tp'] += len(pairs)
        total['fn'] += len(truth) - len(pairs)
        total['fp'] += sum(mask.any() for mask in found) - len(pairs)
        hit = set()
        if truth:
            real = [cv2.boundingRect(mask.astype(np.uint8)) for mask in truth]
            real_boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in real]).float()
            from torchvision.ops import box_iou

            overlap = box_iou(real_boxes, boxes.boxes[0][slots]).numpy()
            hit = {i for i, _ in match(overlap, 0.5)}
            small = [i for i, (_, _, w, h) in enumerate(real) if max(w, h) < 32]
            total['small'] += len(small)
            total['small_hit'] += sum(i in hit for i in small)
        total['objects'] += len(truth)
        total['boxes'] += int(slots.sum())
        total['hit_boxes'] += len(hit)
        anything = scene.labels > 0
        curves.append(
            (
                curve(result.union.numpy(), anything, ignore),
                anything.any(),
                score,
                anything,
                ignore,
            )
        )
    low = min(float(c[2].min()) for c in curves)
    high = max(float(c[2].max()) for c in curves)
    plain = [curve((c[2] - low) / (high - low), c[3], c[4]) for c in curves if c[1]]
    ours = np.mean([c[0] for c in curves if c[1]], 0)
    base = np.mean(plain, 0)
    count = len(data)
    return {
        'scenes': count,
        'objects': total['objects'],
        'box_recall': total['hit_boxes'] / max(total['objects'], 1),
        'box_precision': total['hit_boxes'] / max(total['boxes'], 1),
        'small_objects': total['small'],
        'small_recall': total['small_hit'] / max(total['small'], 1),
        'matched_iou': float(np.mean(matched)) if matched else 0.0,
        'mask_iou_all': float(np.mean(every)) if every else 0.0,
        'component_f1': 2 * total['tp'] / max(2 * total['tp'] + total['fp'] + total['fn'], 1),
        'union_f1': float(ours[0]),
        's2m_mean_f1': float(ours.mean()),
        'threshold_best_f1': float(base.max()),
        'threshold_mean_f1': float(base.mean()),
        **{name: 1e3 * value / count for name, value in spent.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('--data', type=Path, default=Path('../shared/data'))
    parser.add_argument('--source', choices=('camvid', 'proving_ground'), default='camvid')
    parser.add_argument('--profile', default='', help='whose score to use; default: spoilt truth')
    parser.add_argument('--prompts', default='components,light')
    parser.add_argument('--segmenters', default='compact,guided,grabcut')
    parser.add_argument('--scenes', type=int, default=100)
    parser.add_argument('--seed', type=int, default=9000)
    parser.add_argument('--least', type=float, default=0.5, help='IoU from which objects match')
    parser.add_argument('--output', type=Path, help='CSV to append to')
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = scenes(options)
    rows = []
    for prompts in options.prompts.split(','):
        for segmenter in options.segmenters.split(','):
            row = measure(data, prompts, segmenter, options.least)
            head = {'source': options.source, 'profile': options.profile or 'spoilt truth'}
            rows.append({**head, 'prompts': prompts, 'segmenter': segmenter, **row})
            text = (f'{k} {v:.3f}' if isinstance(v, float) else f'{k} {v}' for k, v in row.items())
            print(f'{prompts} + {segmenter}:', ', '.join(text), flush=True)
    if options.output:
        fresh = not options.output.exists()
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with options.output.open('a', newline='') as file:
            writer = csv.DictWriter(file, FIELDS)
            if fresh:
                writer.writeheader()
            for row in rows:
                writer.writerow(
                    {k: f'{v:.4f}' if isinstance(v, float) else v for k, v in row.items()}
                )


if __name__ == '__main__':
    main()
