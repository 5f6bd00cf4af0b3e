# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Peak memory and time of InternImage on the CPU, against DCNv3 with all points sampled at once.

Each formulation runs in a process of its own, so that the peak is its own; runs alternate, so that
a busy machine disturbs both alike.

    python benchmarks/dcnv3_memory.py --model internimage_l_upernet --size 512x1024
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.models import create_model, dcnv3
from ood_perception.models.dcnv3 import POINTS, Implementation, pixels


def sample_all_points(
    value: Tensor, offset: Tensor, mask: Tensor, groups: int, scale: float
) -> Tensor:
    """One grid_sample over all 9 points: 9 feature maps at once, as the usual port does it."""
    batch, height, width, channels = value.shape
    maps = value.view(batch, height, width, groups, -1).permute(0, 3, 4, 1, 2)
    maps = maps.reshape(batch * groups, -1, height, width)
    offset = offset.view(batch, height * width, groups, 9, 2).transpose(1, 2).flatten(0, 1)
    mask = mask.view(batch, height * width, groups, 9).transpose(1, 2).flatten(0, 1)
    centre = pixels(height, width, value.device).view(1, height * width, 1, 2)
    pixel = centre + scale * (torch.tensor(POINTS) + offset)
    grid = (2 * pixel + 1) / torch.tensor([width, height]) - 1
    sampled = F.grid_sample(maps, grid, 'bilinear', 'zeros', align_corners=False)
    out = (sampled * mask.unsqueeze(1)).sum(-1)
    return out.view(batch, channels, height, width).permute(0, 2, 3, 1)


def measure(model_name: str, size: tuple[int, int], way: str, repeats: int) -> dict[str, float]:
    """Run one formulation in this process and read the peak of its memory."""
    if way == 'all_points':
        everything = Implementation('all_points', lambda *_: True, sample_all_points)
        dcnv3.IMPLEMENTATIONS.insert(0, everything)
    elif way == 'grid_sample':
        dcnv3.IMPLEMENTATIONS[:] = dcnv3.IMPLEMENTATIONS[-1:]
    torch.manual_seed(0)
    with torch.device('meta'):
        model = create_model(model_name, auxiliary=False)
    model = model.to_empty(device='cpu')
    for name, tensor in model.state_dict().items():
        # Random offsets too: with none, all samples would hit pixel centres.
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1) if 'var' in name else tensor.normal_(std=0.02)
        else:
            tensor.zero_()
    images = torch.randn(1, 3, *size)
    wall, cpu = [], []
    with torch.inference_mode():
        for _ in range(repeats):
            start, start_cpu = time.perf_counter(), time.process_time()
            logits = model(images).logits
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - start_cpu)
    assert logits is not None
    assert logits.isfinite().all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {'peak_gb': peak, 'wall_s': min(wall), 'cpu_s': min(cpu)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--model', default='internimage_l_upernet')
    parser.add_argument('--size', default='512x1024', help='HEIGHTxWIDTH')
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--repeats', type=int, default=2)
    parser.add_argument('--threads', type=int, default=0, help='0 = as many as torch takes')
    parser.add_argument('--out', type=Path, help='CSV to write')
    parser.add_argument('--way', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    height, width = (int(side) for side in options.size.split('x'))
    if options.way:
        print(json.dumps(measure(options.model, (height, width), options.way, options.repeats)))
        return
    ways = ('table', 'grid_sample', 'all_points')
    results: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way in ways:
            command = [sys.executable, __file__, '--way', way, '--model', options.model]
            command += ['--size', options.size, '--repeats', str(options.repeats)]
            command += ['--threads', str(options.threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, results[way][-1], flush=True)
    best = {
        way: {key: min(run[key] for run in runs) for key in runs[0]}
        for way, runs in results.items()
    }
    naive = best['all_points']
    rows = [
        {
            'model': options.model,
            'size': options.size,
            'threads': options.threads or torch.get_num_threads(),
            'way': way,
            **{key: round(value, 2) for key, value in values.items()},
            'wall_ratio': round(values['wall_s'] / naive['wall_s'], 3),
            'cpu_ratio': round(values['cpu_s'] / naive['cpu_s'], 3),
        }
        for way, values in best.items()
    ]
    for row in rows:
        print(row)
    if options.out:
        with options.out.open('w', newline='') as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == '__main__':
    main()
