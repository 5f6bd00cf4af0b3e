# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Export a segmentor for other runtimes, with a parity check against eager.

Engine files of TensorRT for RTX are built for a named GPU on a machine that needs none.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.exporting import TupleOutput, export_onnx

FORMATS = ('onnx', 'pt2', 'tensorrt-rtx')

MODULES = ('tensorrt_rtx', 'tensorrt_rtx_bindings')  # NVIDIA's package, and its part on PyPI


def export(
    model: nn.Module, size: tuple[int, int], path: str | Path, kind: str, gpu: str = ''
) -> float:
    """
    Write a segmentor without its features: images in, logits and UEM outputs out.

    Args:
        model: segmentor in evaluation mode.
        size: (h, w) of the images, a multiple of what the model wants.
        path: of the file; OSError where it cannot be written.
        kind: 'onnx' (any batch; InternImage: 1), 'pt2' (a program of torch.export, batch 1) or
            'tensorrt-rtx' (an engine for `gpu`, batch 1); ImportError without its runtime.
        gpu: that an engine is for, as 'sm_89'; only for 'tensorrt-rtx'.

    Returns:
        Largest absolute difference between the export and eager, on noise, relative to the largest
        absolute output. An engine runs on its GPU only: the difference is that of the ONNX file
        that it is built from.

    Raises:
        ValueError: unknown format or GPU.
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
        build_engine(source, Path(path), capability)
    return outputs


def library() -> Any:
    """Import TensorRT for RTX. Raises ImportError, which says what to do."""
    reasons = []
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reasons.append(str(error))
    raise ImportError(
        f'TensorRT for RTX is needed ({reasons[-1]}): pip install "ood_perception[rtx]"'
    )


def target(gpu: str) -> Any:
    """Compute capability of a `gpu` as 'sm_89'; 'current' is this machine's. Raises ValueError."""
    known = {
        name.lower().replace('sm', 'sm_'): value
        for name, value in library().ComputeCapability.__members__.items()
        if name != 'NONE'
    }
    if gpu not in known:
        names = ', '.join(sorted(known, key=lambda name: (len(name), name)))
        raise ValueError(
            f'TensorRT for RTX builds for {names}, got {gpu!r}: for other GPUs export onnx, '
            'and build the engine there with trtexec'
        )
    return known[gpu]


def build_engine(source: Path, path: Path, capability: Any) -> int:
    """
    Build an engine from an ONNX file of fixed shapes, whose types it has; returns its layers.

    Raises:
        ValueError: TensorRT for RTX reads the file not, or builds nothing of it.
        OSError: the engine cannot be written; it is there whole, or not at all.
    """
    rtx = library()
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        faults = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise ValueError(f'TensorRT for RTX cannot read {source}: {"; ".join(faults)}')
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(capability, 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError('TensorRT for RTX builds no engine of it; its messages are above')
    partial = path.with_name(f'{path.name}.partial')
    try:
        partial.write_bytes(engine)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return int(network.num_layers)
