# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Export a segmentor for other runtimes, with a parity check against eager."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ood_perception.engines.onnx import export_onnx
from ood_perception.engines.tuple_output import TupleOutput

FORMATS = ('onnx', 'pt2')


def export(model: nn.Module, size: tuple[int, int], path: str | Path, kind: str) -> float:
    """
    Write a segmentor without its features: images in, logits and UEM outputs out.

    Args:
        model: segmentor in evaluation mode.
        size: (h, w) of the images, a multiple of what the model wants.
        path: of the file.
        kind: 'onnx' (any batch; InternImage: 1) or 'pt2' (a program of torch.export, batch 1).

    Returns:
        Largest absolute difference between the export and eager, on noise, relative to the largest
        absolute output.

    Raises:
        ValueError: unknown format.
        ImportError: the format's runtime is missing.

    """
    if kind not in FORMATS:
        raise ValueError(f'format: expected one of {", ".join(FORMATS)}, got {kind!r}')
    network = TupleOutput(model.eval().cpu(), features=False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, *size, generator=generator)
    with torch.no_grad():
        want = network(images)
        got = {'onnx': _onnx, 'pt2': _pt2}[kind](network, images, path)
    return max(
        float(((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).item())
        for a, b in zip(got, want, strict=True)
    )


def _onnx(network: TupleOutput, images: Tensor, path: str | Path) -> list[Tensor]:
    import onnxruntime

    export_onnx(network, images, path)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return [torch.from_numpy(array) for array in session.run(None, {'images': images.numpy()})]


def _pt2(network: TupleOutput, images: Tensor, path: str | Path) -> list[Tensor]:
    torch.export.save(torch.export.export(network, (images,)), str(path))
    return list(torch.export.load(str(path)).module()(images))
