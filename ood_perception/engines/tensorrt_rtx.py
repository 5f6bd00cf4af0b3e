# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Engine files of TensorRT for RTX, built for a named GPU on a machine that needs none."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

MODULES = ('tensorrt_rtx', 'tensorrt_rtx_bindings')
"""NVIDIA's package, and the part of it that PyPI has as a wheel."""


def library() -> Any:
    """
    Import TensorRT for RTX.

    Raises:
        ImportError: it is not installed, or cannot be loaded; the message says what to do.
    """
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
    """
    Compute capability that an engine is to be built for.

    Args:
        gpu: as 'sm_89'; the GPU of this machine is 'current'.

    Raises:
        ValueError: TensorRT for RTX does not build for it.
        ImportError: see :func:`library`.
    """
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


def build_engine(source: str | Path, path: str | Path, capability: Any) -> int:
    """
    Build an engine from an ONNX file; its types are those of the file.

    Args:
        source: ONNX file with fixed shapes.
        path: of the engine; it is there whole, or not at all.
        capability: what :func:`target` gave.

    Returns:
        Layers of the network.

    Raises:
        ValueError: TensorRT for RTX reads the file not, or builds nothing of it.
        OSError: the engine cannot be written.
    """
    rtx, path = library(), Path(path)
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
