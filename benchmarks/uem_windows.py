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
Sliding windows of UEM, batched and with one pass of DINOv2, against plain loops; random weights.

    python benchmarks/uem_windows.py --small
    python benchmarks/uem_windows.py --runs 3

The official loop runs the frozen DINOv2 twice for each window. All ways alternate in one run.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.models import create_model
from ood_perception.models.windows import window_starts

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


def plain_loop(model: Any, images: Tensor, passes: int) -> Tensor:
    """Mean (1, K + 2, H, W) over windows one by one, with that many passes of DINOv2 each."""
    height, width = images.shape[2:]
    h, w = (
        min(side, limit // 14 * 14)
        for side, limit in zip(model.window, (height, width), strict=True)
    )
    total: Tensor | None = None
    hits = images.new_zeros(height, width)
    for y in window_starts(height, h, model.stride[0]):
        for x in window_starts(width, w, model.stride[1]):
            crop = images[:, :, y : y + h, x : x + w]
            for _ in range(passes - 1):
                model.segmentor.backbone.dinov2.patch_maps(crop, [11])
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


def batched(model: Any, images: Tensor) -> Tensor:
    """The same mean from the model's own windows."""
    out = model.sliding(images)
    return torch.cat([out.logits, out.ood], dim=1)


def main() -> None:
    """Print the ratios and append them to a CSV file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--small', action='store_true', help='a small network and image')
    parser.add_argument('--size', default='', help='WIDTHxHEIGHT of the image')
    parser.add_argument('--batch', type=int, default=4, help='windows in a batch')
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--output', type=Path, default=Path('benchmarks/results/uem_windows.csv'))
    args = parser.parse_args()
    size = args.size or ('336x196' if args.small else '2048x1024')
    width, height = (int(side) for side in size.split('x'))
    torch.manual_seed(0)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    options = SMALL if args.small else {}
    model: Any = create_model('uem_gd', mode='sliding', window_batch=args.batch, **options)
    model = model.eval().to(device)
    images = torch.randn(1, 3, height, width, device=device)
    ways: dict[str, Callable[[], Tensor]] = {
        'official loop, two passes': lambda: plain_loop(model, images, 2),
        'plain loop, one pass': lambda: plain_loop(model, images, 1),
        f'batches of {args.batch}': lambda: batched(model, images),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    values: dict[str, Tensor] = {}
    with torch.inference_mode():
        for run in range(-1, args.runs):  # the first round warms up
            for name, way in ways.items():
                start = time.perf_counter()
                values[name] = way()
                if device == 'cuda':
                    torch.cuda.synchronize()
                if run >= 0:
                    times[name].append(1e3 * (time.perf_counter() - start))
    reference = next(iter(values.values()))
    base = sorted(times['official loop, two passes'])[args.runs // 2]
    rows = []
    for name in ways:
        median = sorted(times[name])[args.runs // 2]
        gap = float((values[name] - reference).abs().max())
        print(f'{name}: {median:.0f} ms, {base / median:.2f}x, largest difference {gap:.1e}')
        network = 'small' if args.small else 'vit_b'
        rows.append([network, size, device, name, f'{median:.1f}', f'{base / median:.3f}', gap])
    fresh = not args.output.exists()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open('a', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(['network', 'size', 'device', 'way', 'ms', 'ratio', 'difference'])
        writer.writerows(rows)


if __name__ == '__main__':
    main()
