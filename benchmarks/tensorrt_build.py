# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What TensorRT makes of every shipped network, on a machine without a GPU.

`make tensorrt` installs what this needs and runs it. Two questions for each network, whose weights
are random and whose inputs are small:

- How would torch-tensorrt cut it (its dry run)? Operators, how many of them it supports, engines.
- Does TensorRT for RTX build an engine of its ONNX file? Layers, size, seconds.

The dry run asks the driver for a GPU; constants of an H200 answer it. Numbers and speed of the
engines need a GPU.

    python benchmarks/tensorrt_build.py --output benchmarks/results/tensorrt_build.csv
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkout  # noqa: F401
import torch
from table import append
from torch import Tensor, nn

from ood_perception.engines.export import TupleOutput, build_engine, export_onnx, library, target
from ood_perception.engines.tensorrt import build, in_precision
from ood_perception.masks import boxes, create_mask_model, create_prompts
from ood_perception.masks.rcnn_prompts import detect_in_slots
from ood_perception.masks.sam import SamMaskModel
from ood_perception.models import create_model
from ood_perception.models.heads import fold

FIELDS = (
    'network', 'inputs', 'precision', 'operators', 'supported', 'share', 'engines', 'in_torch',
    'gpu', 'layers', 'megabytes', 'seconds', 'trouble', 'versions', 'command',
)  # fmt: skip

Case = tuple[nn.Module, tuple[Tensor, ...]]


def segmentor(name: str, size: tuple[int, int], features: bool = False, **options: Any) -> Case:
    """A segmentor as the pipeline prepares it, and one image."""
    model = fold(create_model(name, **options).eval())
    return TupleOutput(model, features), (torch.randn(1, 3, *size),)


class SamDecoder(nn.Module):
    """SAM's prompt encoder and mask decoder: (N, 256, 64, 64) and (N, 4) -> (N, H, W)."""

    def __init__(self, sam: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.size = SamMaskModel(sam), size

    def forward(self, embeddings: Tensor, prompts: Tensor) -> Tensor:
        """Logits of N boxes, each with its frame's embedding."""
        return self.model._decode(embeddings, prompts, self.size)


class Detector(nn.Module):
    """S2M's detector in slots: (B, H, W) scores -> boxes (B, K, 4), confidences (B, K)."""

    def __init__(self) -> None:
        super().__init__()
        self.model: Any = create_model('s2m_prompt_rcnn')

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Detect."""
        return detect_in_slots(self.model, scores)


def sam_encoder() -> Case:
    """Image encoder of SAM ViT-B at its own size."""
    from segment_anything import sam_model_registry

    return sam_model_registry['vit_b']().image_encoder.eval(), (torch.randn(1, 3, 1024, 1024),)


def sam_decoder() -> Case:
    """Decoder of SAM for 16 boxes of a frame of 480x640."""
    from segment_anything import sam_model_registry

    network = SamDecoder(sam_model_registry['vit_b'](), (480, 640)).eval()
    prompts = torch.tensor([[40.0, 60.0, 200.0, 240.0]]).expand(16, 4)
    return network, (torch.randn(16, 256, 64, 64), prompts)


NETWORKS: dict[str, Callable[[], Case]] = {
    'compact': lambda: segmentor('compact', (432, 576)),
    'score_detector': lambda: (
        create_prompts('score_detector').network,  # type: ignore[attr-defined]
        (torch.randn(1, 4, 432, 576),),
    ),
    'mask_head': lambda: (
        create_mask_model('compact').head,  # type: ignore[attr-defined]
        (torch.randn(16, 5, 96, 96),),
    ),
    'dinov2_vits14_reg': lambda: segmentor('dinov2_vits14_reg', (126, 126), True),
    'uem_gd': lambda: segmentor('uem_gd', (126, 252)),
    'uem_dd': lambda: segmentor('uem_dd', (126, 252)),
    'uem_gg': lambda: segmentor('uem_gg', (126, 252)),
    'internimage_t_upernet': lambda: segmentor(
        'internimage_t_upernet', (128, 128), auxiliary=False
    ),
    'sam_vit_b_encoder': sam_encoder,
    'sam_vit_b_decoder': sam_decoder,
    's2m_prompt_rcnn': lambda: (Detector().eval(), (torch.randn(1, 128, 160),)),
}


def pretend_gpu() -> None:
    """Answer what torch-tensorrt asks of a GPU, when it is imported and later, for an H200."""
    memory = 140 << 30
    properties = SimpleNamespace(name='NVIDIA H200', major=9, minor=0, total_memory=memory)
    answers: dict[str, Callable[..., Any]] = {
        'get_device_properties': lambda *_: properties,
        'get_device_capability': lambda *_: (9, 0),
        'get_device_name': lambda *_: properties.name,
        'current_device': lambda: 0,
        'device_count': lambda: 1,
        'mem_get_info': lambda *_: (memory, memory),
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    # NVIDIA's package of this name is no wheel, and does nothing but this.
    sys.modules.setdefault('tensorrt_rtx', importlib.import_module('tensorrt_rtx_bindings'))


def dry_run(network: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> dict[str, Any]:
    """How torch-tensorrt would cut a network."""
    report = folder / 'dry_run.txt'
    with contextlib.redirect_stdout(None):  # it is printed, too
        build(network, inputs, dryrun=str(report), min_block_size=1)
    text = report.read_text()
    total, supported = map(int, re.findall(r'(\d+) (?:Total O|o)perators', text)[:2])
    left = re.findall(r'^ ?([\w.]+): (\d+)$', text, re.M)
    return {
        'operators': total,
        'supported': supported,
        'share': 100 * supported / total,
        'engines': len(re.findall(r'TRT Engine #', text)),
        'in_torch': ' '.join(f'{name}:{count}' for name, count in left),
    }


def ahead_of_time(
    network: nn.Module, inputs: tuple[Tensor, ...], folder: Path, gpu: str
) -> dict[str, Any]:
    """Build an engine by TensorRT for RTX."""
    source, path = folder / 'model.onnx', folder / 'model.engine'
    export_onnx(network, inputs, source, batch=False)
    start = time.perf_counter()
    layers = build_engine(source, path, target(gpu))
    seconds = time.perf_counter() - start
    return {'layers': layers, 'megabytes': path.stat().st_size / 2**20, 'seconds': seconds}


def row_of(name: str, gpu: str, precision: str) -> dict[str, Any]:
    """What becomes of one network; what fails is named under `trouble`."""
    torch.manual_seed(0)
    network, inputs = NETWORKS[name]()
    network.requires_grad_(False)
    if precision != 'float32':
        dtype = getattr(torch, precision)
        network, inputs = in_precision(network, dtype), tuple(x.to(dtype) for x in inputs)
    sizes = ' '.join('x'.join(map(str, x.shape)) for x in inputs)
    row: dict[str, Any] = {
        'network': name, 'inputs': sizes, 'precision': precision, 'gpu': gpu, 'trouble': '',
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for step, arguments in ((dry_run, ()), (ahead_of_time, (gpu,))):
            try:
                row.update(step(network, inputs, Path(folder), *arguments))
            except Exception as error:  # the other half still tells something
                reason = ' '.join(str(error).replace(f'{folder}/', '').split())[:300]
                row['trouble'] += f'{step.__name__}: {type(error).__name__}: {reason} '
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[1])
    parser.add_argument('--networks', default=','.join(NETWORKS), help='names, by commas')
    parser.add_argument('--for', dest='gpu', default='sm_89', help='GPU of the RTX engines')
    parser.add_argument('--precision', default='float32', help='of the weights')
    parser.add_argument('--output', type=Path, help='CSV to append to')
    options = parser.parse_args()
    names = options.networks.split(',')
    if unknown := set(names) - set(NETWORKS):
        parser.error(f'no network {", ".join(sorted(unknown))}: {", ".join(NETWORKS)}')
    boxes.ALWAYS_WAITS = True  # as on a GPU: no shape depends on what is found
    pretend_gpu()
    import torch_tensorrt

    about = {
        'versions': f'torch {torch.__version__}, torch-tensorrt-rtx {torch_tensorrt.__version__}, '
        f'TensorRT for RTX {library().__version__}',
        'command': shlex.join(['python', *sys.argv]),
    }
    for name in names:
        row = row_of(name, options.gpu, options.precision)
        print(', '.join(f'{k} {v}' for k, v in row.items() if v != ''), flush=True)
        if options.output:
            append(options.output, FIELDS, [{**row, **about}])


if __name__ == '__main__':
    main()
