# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Engines: how a network is run on the device."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable

import torch
from torch import nn

from ood_perception.engines.compiled import CompiledEngine
from ood_perception.engines.eager import EagerEngine
from ood_perception.engines.fallback import Engine, FallbackEngine, FastestEngine
from ood_perception.engines.onnx import OnnxRuntimeEngine
from ood_perception.engines.openvino import (
    OpenVINOBfloat16Engine,
    OpenVINOEngine,
    OpenVINOInt8Engine,
)
from ood_perception.engines.tensorrt import TensorRTEngine
from ood_perception.host_cpu import has_bfloat16_tiles, has_int8_instructions

__all__ = ['ENGINES', 'Engine', 'create_engine']

ENGINES: dict[str, Callable[[nn.Module, torch.device, torch.dtype, bool], Engine]] = {
    'eager': EagerEngine,
    'compiled': CompiledEngine,
    'tensorrt': TensorRTEngine,
    'onnxruntime': OnnxRuntimeEngine,
    'openvino': OpenVINOEngine,
    'openvino_bf16': OpenVINOBfloat16Engine,
    'openvino_int8': OpenVINOInt8Engine,
}
"""One table of engines: ``factory(model, device, precision, features) -> Engine``."""


def candidates(device: torch.device, rounded: bool = False) -> list[str]:
    """
    Engines that 'auto' measures on `device`: what is installed and starts within seconds.

    Args:
        device: to run on.
        rounded: whether the segmentor may be run in bfloat16 or its int8 form, on a CPU.

    """
    if device.type == 'cuda':
        names = ['tensorrt'] if importlib.util.find_spec('torch_tensorrt') else []
        return [*names, 'compiled', 'eager']
    names = [n for n in ('openvino', 'onnxruntime') if importlib.util.find_spec(n)]
    if platform.machine().lower() in ('x86_64', 'amd64'):
        # there OpenVINO was the faster one wherever measured, and an export less starts sooner
        names = names[:1]
    if rounded and names == ['openvino']:
        if has_bfloat16_tiles():
            names = ['openvino_bf16']
        elif has_int8_instructions():
            names = ['openvino_int8']
    return [*names, 'eager']


def create_engine(
    name: str,
    model: nn.Module,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    features: bool = True,
    note: Callable[[str], None] = lambda line: None,
) -> FallbackEngine | FastestEngine:
    """
    Put a segmentor on the device behind an engine.

    Args:
        name: entry of `ENGINES`, or 'auto' for the fastest of :func:`candidates`.
        model: segmentor, a module from images to SegmentorOutput.
        device: where to run.
        precision: float32, float16 or bfloat16, on a GPU; on a CPU the engine's name says it.
        features: False when nobody reads the features.
        note: told one line when an engine is given up for a simpler one.

    Raises:
        ValueError: unknown engine.

    """
    if name != 'auto' and name not in ENGINES:
        raise ValueError(f'engine: expected auto or one of {", ".join(ENGINES)}, got {name!r}')

    def maker(entry: str) -> tuple[str, Callable[[], Engine]]:
        return entry, lambda: ENGINES[entry](model, device, precision, features)

    if name == 'auto':
        # What rounding loses was measured on the segmentor that has an int8 form. Features feed
        # memories that another engine may have filled: those stay in float32.
        names = candidates(device, hasattr(model, 'int8') and not features)
        return FastestEngine([maker(entry) for entry in names], note)
    steps = {
        'tensorrt': ['tensorrt', 'compiled', 'eager'],
        'openvino': ['openvino', 'onnxruntime', 'eager'],
        'openvino_bf16': ['openvino_bf16', 'openvino', 'eager'],
        'openvino_int8': ['openvino_int8', 'openvino', 'eager'],
        'eager': ['eager'],
    }
    return FallbackEngine([maker(entry) for entry in steps.get(name, [name, 'eager'])], note)
