# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
UEM in sliding windows: ours against the plain loops at equal output; and the cheaper windows.

    python benchmarks/uem_windows.py --network small --output benchmarks/results/uem_windows.csv
    python benchmarks/uem_windows.py --network medium
    python benchmarks/uem_windows.py --network small --table
    python benchmarks/uem_windows.py --table --weights uem_gd --data ../shared/data
    python benchmarks/uem_windows.py --table --network compact --data ../shared/data

The alternative is the official code's way: each window by itself, the frozen DINOv2 run twice (for
the segmentor and for the UEM), the decoder layer by layer. All ways alternate within one run, with
random weights; the largest difference of the outputs is printed beside the ratio.

--table compares the windows full, coarse and single: time, and accuracy where --weights names a
trained UEM. Random weights have no accuracy; their column says how the scores agree with full.
`--network compact` slides the shipped compact network, which is trained, in the same three ways.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.building import load_segmentor
from ood_perception.models import create_model, heads
from ood_perception.models.dinov2 import PATCH
from ood_perception.models.output import SegmentorOutput
from ood_perception.models.uem import logits_over_windows, window_starts
from ood_perception.profile import Profile
from ood_perception.scores import log_likelihood_ratio

SMALL: dict[str, Any] = {
    'embed_dim': 96,
    'depth': 12,
    'num_heads': 3,
    'channels': 32,
    'mlp_hidden': 64,
    'projector_hidden': (64, 64),
    'window': (112, 224),
    'stride': (28, 28),
}
NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    # options, WIDTHxHEIGHT of the image
    'small': (SMALL, '336x196'),
    'medium': ({'variant': 's', 'window': (266, 518), 'stride': (70, 70)}, '784x518'),
    'full': ({}, '2048x1024'),
    'compact': ({}, '768x576'),
}
"""Seconds, minutes (ViT-S, half the published window) and an hour (as published) on two cores."""


class CompactInWindows(nn.Module):
    """The shipped compact network in windows of its working size, as far apart as the paper's."""

    window, stride, mode = (432, 576), (116, 156), 'sliding'

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = load_segmentor(Profile.load('compact'))
        self.spec = self.network.spec

    def forward(self, images: Tensor) -> SegmentorOutput:
        """Class and UEM logits of one pass, or the mean over windows at the images' size."""
        if self.mode == 'single':
            return self.network(images)
        return logits_over_windows(self.network, images, self.window, self.stride)


@contextmanager
def layer_by_layer() -> Iterator[None]:
    """Run the decoder as published: enlarge, then project; ours multiplies the kernels first."""
    ours = heads.FPN._enlarge
    heads.FPN._enlarge = lambda self, level, stages, x: self.lateral_convs[level](stages(x))
    try:
        yield
    finally:
        heads.FPN._enlarge = ours


def plain_loop(model: Any, images: Tensor, passes: int) -> Tensor:
    """Mean (1, K + 2, H, W) over windows one by one, with that many passes of DINOv2 each."""
    height, width = images.shape[2:]
    h, w = (
        min(side, limit // 14 * 14)
        for side, limit in zip(model.window, (height, width), strict=True)
    )
    dinov2 = model.segmentor.backbone.dinov2
    total: Tensor | None = None
    hits = images.new_zeros(height, width)
    with layer_by_layer():
        for y in window_starts(height, h, model.stride[0]):
            for x in window_starts(width, w, model.stride[1]):
                crop = images[:, :, y : y + h, x : x + w]
                for _ in range(passes - 1):
                    dinov2.patch_maps(crop, dinov2.out_indices[-1:])
                out = model.single(crop)
                parts = [
                    F.interpolate(part, (h, w), mode='bilinear', align_corners=False)
                    for part in (out.logits, out.ood)
                ]
                value = torch.cat(parts, dim=1)
                if total is None:
                    total = value.new_zeros(1, value.shape[1], height, width)
                total[:, :, y : y + h, x : x + w] += value
                hits[y : y + h, x : x + w] += 1
    assert total is not None
    return total / hits


def ours(model: Any, images: Tensor, batch: int | None) -> Tensor:
    """The same mean from the model's own windows."""
    model.window_batch = batch
    out = model.sliding(images)
    return torch.cat([out.logits, out.ood], dim=1)


def compare(model: Any, images: Tensor, runs: int) -> list[dict[str, Any]]:
    """Time all ways in turns; each with its ratio to, and its difference from, the first."""
    ways: dict[str, Callable[[], Tensor]] = {
        'official two-pass loop': lambda: plain_loop(model, images, 2),
        'plain loop, one pass': lambda: plain_loop(model, images, 1),
        'ours': lambda: ours(model, images, None),
        'ours, batches of 4': lambda: ours(model, images, 4),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    values: dict[str, Tensor] = {}
    for run in range(-1, runs):  # the first round warms up
        for name, way in ways.items():
            start = time.perf_counter()
            values[name] = way()
            if images.is_cuda:
                torch.cuda.synchronize()
            if run >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    first = next(iter(ways))
    rows = []
    for name in ways:
        # ratio of each round by itself, so that a busy spell weighs on one round only
        pairs = zip(times[first], times[name], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        gap = float((values[name] - values[first]).abs().max())
        ms = statistics.median(times[name])
        rows.append({'way': name, 'ms': round(ms, 1), 'ratio': round(ratio, 3), 'difference': gap})
        print(f'{name}: {ms:.0f} ms, {ratio:.2f}x, largest difference {gap:.1e}', flush=True)
    return rows


def table(model: Any, images: Tensor, runs: int, data: Path | None) -> list[dict[str, Any]]:
    """Time of full, coarse and single windows, and their accuracy on `data` or agreement."""
    full, window = model.stride, model.window
    reference: Tensor | None = None
    base = 0.0
    rows = []
    for name in ('full', 'coarse', 'single'):
        model.mode = 'single' if name == 'single' else 'sliding'
        model.stride = full if name == 'full' else tuple(side // 2 for side in window)
        times = []
        for _ in range(runs + 1):
            start = time.perf_counter()
            score = scored(model, images)
            times.append(1e3 * (time.perf_counter() - start))
        ms = statistics.median(times[1:])
        reference, base = (score, ms) if reference is None else (reference, base)
        row: dict[str, Any] = {'windows': name, 'ms': round(ms, 1), 'ratio': round(base / ms, 2)}
        row |= {'ap': 'no weights', 'fpr95': 'no weights', 'agreement_random_weights': ''}
        if data is None:
            both = torch.stack([score.flatten(), reference.flatten()])
            row['agreement_random_weights'] = round(float(both.corrcoef()[0, 1]), 4)
        else:
            row |= accuracy(model, (int(images.shape[2]), int(images.shape[3])), data)
        rows.append(row)
        print('  '.join(f'{key} {value}' for key, value in row.items()), flush=True)
    return rows


def scored(model: Any, images: Tensor) -> Tensor:
    """Likelihood ratio (B, H, W); in single mode at sides that the network can take."""
    size, unit = images.shape[2:], 8 if isinstance(model, CompactInWindows) else PATCH
    if model.mode == 'single':
        images = F.interpolate(images, [side // unit * unit for side in size], mode='bilinear')
    out = model(images)
    ratio = log_likelihood_ratio(out.logits, out.ood, size)
    if images.is_cuda:
        torch.cuda.synchronize()
    return ratio


def accuracy(model: Any, size: tuple[int, int], data: Path) -> dict[str, float]:
    """AP and FPR95 (percent) on objects pasted on held-out CamVid frames, enlarged to `size`."""
    from compact_quality import pasted

    from ood_evaluation.pixel_metrics import PixelMetrics
    from ood_perception.frames.transfer import normalise

    metrics = PixelMetrics()
    device = next(model.parameters()).device
    for image, label in pasted(data):
        frame = torch.from_numpy(image).permute(2, 0, 1)[None]
        frame = F.interpolate(frame, size, mode='bilinear', antialias=True).to(device)
        score = scored(model, normalise(frame, model.spec))[:, None]
        score = F.interpolate(score, label.shape, mode='bilinear')
        metrics.update(score[0, 0].cpu().numpy(), label)
    found = metrics.compute()
    return {'ap': round(100 * found['ap'], 2), 'fpr95': round(100 * found['fpr95'], 2)}


def main() -> None:
    """Print the ratios or the table, and write them as CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--network', choices=list(NETWORKS), default='full')
    parser.add_argument('--size', default='', help='WIDTHxHEIGHT of the image')
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--table', action='store_true', help='compare full, coarse and single')
    parser.add_argument('--weights', default='', help='of uem_gd: a path or catalogue name')
    parser.add_argument('--data', type=Path, default=Path('../shared/data'), help='for --weights')
    parser.add_argument('--output', type=Path, help='CSV file to write')
    args = parser.parse_args()
    options, size = NETWORKS[args.network]
    size = args.size or size
    width, height = (int(side) for side in size.split('x'))
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    compact = args.network == 'compact'
    if compact and not args.table:
        parser.error('--network compact: only for --table, there is no official loop of it')
    model: Any = (
        CompactInWindows() if compact else create_model('uem_gd', mode='sliding', **options)
    )
    if args.weights:
        from ood_perception.checkpoints import load_checkpoint
        from ood_perception.checkpoints.store import resolve

        load_checkpoint(model, resolve(args.weights))
    model = model.eval().to(device)
    images = torch.randn(1, 3, height, width, device=device)
    with torch.inference_mode():
        if args.table:
            rows = table(model, images, args.runs, args.data if args.weights or compact else None)
        else:
            rows = compare(model, images, args.runs)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        with args.output.open('w', newline='', encoding='utf-8') as file:
            threads = f'{torch.get_num_threads()} threads' if device == 'cpu' else 'GPU'
            file.write(f'# {shlex.join(["python", *sys.argv])} ({threads})\n')
            common = {'network': args.network, 'size': size, 'device': device}
            writer = csv.DictWriter(file, [*common, *rows[0]])
            writer.writeheader()
            writer.writerows({**common, **row} for row in rows)


if __name__ == '__main__':
    main()
