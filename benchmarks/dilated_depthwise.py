# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Dilated depthwise convolutions of training on a CPU: over interleaved grids, against PyTorch's own.

    python benchmarks/dilated_depthwise.py --output benchmarks/results/dilated_depthwise.csv

The layers are those of the compact UEM for a batch of 8 views of 288x384. Forward and backward of
both ways alternate, in one thread; `error` is the largest difference of the weights' gradient from
the one in double precision, relative to its largest value.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ood_perception.models.compact import ContextBlock
from ood_training.depthwise import interleaved

SHAPE = (8, 160, 36, 48)


def layer(dilation: int, kind: torch.dtype) -> nn.Conv2d:
    """The depthwise convolution of the UEM's context."""
    return cast(nn.Conv2d, ContextBlock(SHAPE[1], dilation).dw[0]).to(kind)


def gradient(way: Callable[[Tensor], Tensor], conv: nn.Conv2d, x: Tensor, g: Tensor) -> Tensor:
    """Forward and backward; the gradient of the weights."""
    return torch.autograd.grad(way(x), (conv.weight, x), g)[0]


def measure(dilation: int, kind: torch.dtype, rounds: int) -> dict[str, float]:
    """Median times in ms of both ways, their ratio, and the errors of both gradients."""
    torch.manual_seed(dilation)
    conv, exact = layer(dilation, kind), layer(dilation, torch.float64)
    exact.weight.data.copy_(conv.weight.data)
    x = torch.randn(SHAPE, dtype=kind).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    g = torch.randn(SHAPE, dtype=kind).contiguous(memory_format=torch.channels_last)
    true = gradient(exact, exact, x.detach().double().requires_grad_(), g.double())
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        'grids': lambda maps: interleaved(conv, maps),
        'pytorch': conv,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, float] = {}
    for number in range(rounds + 2):
        for name, way in ways.items():
            begin = time.perf_counter()
            got = gradient(way, conv, x, g)
            if number >= 2:
                times[name].append(time.perf_counter() - begin)
            found[f'{name}_error'] = float((got - true).abs().max() / true.abs().max())
    for name, values in times.items():
        found[f'{name}_ms'] = 1e3 * statistics.median(values)
    return {**found, 'ratio': found['pytorch_ms'] / found['grids_ms']}


def main() -> None:
    """Print a row for each dilation and precision, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--rounds', type=int, default=20)
    parser.add_argument('--output', type=Path, help='CSV to write')
    options = parser.parse_args()
    torch.set_num_threads(1)
    command = shlex.join(['python', *sys.argv])
    rows = []
    for kind in (torch.float32, torch.bfloat16):
        for dilation in (3, 6):
            numbers = measure(dilation, kind, options.rounds)
            row = {'precision': str(kind).removeprefix('torch.'), 'dilation': dilation}
            rows.append({**row, **{k: f'{v:.3g}' for k, v in numbers.items()}, 'command': command})
            print(
                f'{row["precision"]:8} dilation {dilation}: grids {numbers["grids_ms"]:5.1f} ms, '
                f'pytorch {numbers["pytorch_ms"]:5.1f} ms, ratio {numbers["ratio"]:4.1f}; error '
                f'of the gradient {numbers["grids_error"]:.1g} and {numbers["pytorch_error"]:.1g}'
            )
    if options.output:
        with options.output.open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == '__main__':
    main()
