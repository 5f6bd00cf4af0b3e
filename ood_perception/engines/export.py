# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Export a segmentor for other runtimes, with a parity check against eager."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.onnx import export_onnx
from ood_perception.engines.tensorrt_rtx import build_engine, target
from ood_perception.engines.tuple_output import TupleOutput

FORMATS = ('onnx', 'pt2', 'tensorrt-rtx')


def export(
    model: nn.Module, size: tuple[int, int], path: str | Path, kind: str, gpu: str = ''
) -> float:
    """
    Write a segmentor without its features: images in, logits and UEM outputs out.

    Args:
        model: segmentor in evaluation mode.
        size: (h, w) of the images, a multiple of what the model wants.
        path: of the file.
        kind: 'onnx' (any batch; InternImage: 1), 'pt2' (a program of torch.export, batch 1) or
            'tensorrt-rtx' (an engine for `gpu`, batch 1).
        gpu: that an engine is for, as 'sm_89'; only for 'tensorrt-rtx'.

    Returns:
        Largest absolute difference between the export and eager, on noise, relative to the largest
        absolute output. An engine runs on its GPU only: the difference is that of the ONNX file
        that it is built from.

    Raises:
        ValueError: unknown format or GPU.
        ImportError: the format's runtime is missing.
        OSError: the file cannot be written.
    """
    if kind not in FORMATS:
        raise ValueError(f'format: expected one of {", ".join(FORMATS)}, got {kind!r}')
    if bool(gpu) != (kind == 'tensorrt-rtx'):
        raise ValueError('the format tensorrt-rtx, and no other, is for a GPU: --for sm_89')
    capability = target(gpu) if gpu else None
    network = TupleOutput(model.eval().cpu(), features=False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, *size, generator=generator)
    with torch.no_grad():
        want = network(images)
        if gpu:
            got = _tensorrt_rtx(network, images, path, capability)
        else:
            got = {'onnx': _onnx, 'pt2': _pt2}[kind](network, images, path)
    return max(
        float(((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).item())
        for a, b in zip(got, want, strict=True)
    )


def _onnx(
    network: TupleOutput, images: Tensor, path: str | Path, batch: bool = True
) -> list[Tensor]:
    import onnxruntime

    export_onnx(network, images, path, batch)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return [torch.from_numpy(array) for array in session.run(None, {'images': images.numpy()})]


def _pt2(network: TupleOutput, images: Tensor, path: str | Path) -> list[Tensor]:
    torch.export.save(torch.export.export(network, (images,)), str(path))
    return list(torch.export.load(str(path)).module()(images))


def _tensorrt_rtx(
    network: TupleOutput, images: Tensor, path: str | Path, capability: Any
) -> list[Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'model.onnx'
        outputs = _onnx(network, images, source, batch=False)
        build_engine(source, path, capability)
    return outputs
