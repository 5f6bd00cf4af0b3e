# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Export a segmentor for other runtimes, with a parity check against eager."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ood_perception.engines.flat import Flat
from ood_perception.engines.onnx import export_onnx

FORMATS = ('onnx', 'aoti', 'torch-tensorrt')


def export(model: nn.Module, size: tuple[int, int], path: str | Path, kind: str) -> float:
    """
    Write a segmentor without its features: images in, logits and UEM outputs out.

    Args:
        model: segmentor in evaluation mode.
        size: (h, w) of the images, a multiple of what the model wants.
        path: of the file.
        kind: 'onnx' (any batch), 'aoti' (AOTInductor package, batch 1, needs a C++ compiler) or
            'torch-tensorrt' (batch 1, needs a GPU and torch-tensorrt).

    Returns:
        Largest absolute difference between the export and eager, on noise, relative to the largest
        absolute output.

    Raises:
        ValueError: unknown format.
        ImportError: the format's runtime is missing.

    """
    if kind not in FORMATS:
        raise ValueError(f'format: expected one of {", ".join(FORMATS)}, got {kind!r}')
    device = torch.device('cuda' if kind == 'torch-tensorrt' else 'cpu')
    flat = Flat(model.eval().to(device), features=False)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, *size, generator=generator).to(device)
    with torch.no_grad():
        want = flat(images)
        got = {'onnx': _onnx, 'aoti': _aoti, 'torch-tensorrt': _tensorrt}[kind](flat, images, path)
    return max(
        float(((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).item())
        for a, b in zip(got, want, strict=True)
    )


def _onnx(flat: Flat, images: Tensor, path: str | Path) -> list[Tensor]:
    import onnxruntime

    export_onnx(flat, images, path)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return [torch.from_numpy(array) for array in session.run(None, {'images': images.numpy()})]


def _aoti(flat: Flat, images: Tensor, path: str | Path) -> list[Tensor]:
    exported = torch.export.export(flat, (images,))
    package = torch._inductor.aoti_compile_and_package(exported, package_path=str(path))
    return list(torch._inductor.aoti_load_package(package)(images))


def _tensorrt(flat: Flat, images: Tensor, path: str | Path) -> list[Tensor]:
    # Written against torch-tensorrt's documentation; not run where this package is tested.
    import torch_tensorrt

    exported = torch.export.export(flat, (images,))
    engine = torch_tensorrt.dynamo.compile(exported, inputs=[images])
    torch_tensorrt.save(engine, str(path), inputs=[images])
    return list(engine(images))
