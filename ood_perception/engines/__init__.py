# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Engines: how a network is run on the device."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch import nn

from ood_perception.engines.adaptive import AdaptiveEngine
from ood_perception.engines.base import Engine, EngineEvent
from ood_perception.engines.choices import Choices, network_key, processor, versions
from ood_perception.engines.eager import CompiledEngine, EagerEngine
from ood_perception.engines.measure import prober
from ood_perception.engines.onnx import OnnxRuntimeEngine
from ood_perception.engines.openvino import OpenVINOEngine
from ood_perception.engines.tensorrt import TensorRTEngine
from ood_perception.host_cpu import is_held
from ood_perception.models.output import InputSpec

__all__ = ['ENGINES', 'AdaptiveEngine', 'Engine', 'EngineEvent', 'create_engine']

ENGINES: dict[str, Callable[..., Engine]] = {
    'eager': EagerEngine,
    'compiled': CompiledEngine,
    'tensorrt': TensorRTEngine,
    'onnxruntime': OnnxRuntimeEngine,
    'openvino': OpenVINOEngine,
    'openvino_bf16': functools.partial(OpenVINOEngine, form='bfloat16'),
    'openvino_int8': functools.partial(OpenVINOEngine, form='int8'),
}
"""
One table of engines: ``factory(model, device, precision, features) -> Engine``.

Those of OpenVINO take `lanes`, too: how many threads may call at once.
"""

SIMPLER = {
    'tensorrt': ['compiled', 'eager'],
    'openvino': ['eager'],
    'openvino_bf16': ['openvino', 'eager'],
    'openvino_int8': ['openvino', 'eager'],
    'eager': [],
}
"""What replaces an engine that fails, best first; ['eager'] for those that are not here."""


def candidates(device: torch.device, rounded: bool = False, live: bool = False) -> list[str]:
    """
    Engines that 'auto' measures on `device`: all that are installed, but torch.compile on a CPU.

    That one takes a minute and a C++ compiler, and was never the fastest there. `rounded` says
    whether a CPU may run the segmentor in bfloat16 and int8. While frames are computed (`live`),
    torch.export, which takes the interpreter for seconds, is left out where there is OpenVINO.
    """

    def installed(*modules: str) -> bool:
        return all(importlib.util.find_spec(module) is not None for module in modules)

    if device.type == 'cuda':
        return [*(['tensorrt'] if installed('torch_tensorrt') else []), 'compiled', 'eager']
    if device.type != 'cpu':
        return ['eager']
    names = []
    if installed('openvino'):
        names = ['openvino_int8', 'openvino_bf16', 'openvino'] if rounded else ['openvino']
    # ONNX Runtime has no switch for what the CPU may use: it would be measured as another CPU
    exports = not (live and names) and not is_held()
    if exports and installed('onnx', 'onnxscript', 'onnxruntime'):
        names += ['onnxruntime']
    return [*names, 'eager']


def create_engine(
    name: str,
    model: nn.Module,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    features: bool = True,
    note: Callable[[str], None] = lambda line: None,
    live: bool = False,
    lanes: int = 1,
) -> AdaptiveEngine:
    """
    Put a segmentor on the device behind an engine, see `base.Engine`.

    `name` is an entry of `ENGINES` (ValueError: another), or 'auto' for the fastest of
    :func:`candidates`. `note` is told one line whenever something is decided. With `live` no frame
    waits for the preparation of an engine or of a new shape. `lanes` threads may call at once; the
    cores of a CPU are divided between them.
    """
    if name != 'auto' and name not in ENGINES:
        raise ValueError(f'engine: expected auto or one of {", ".join(ENGINES)}, got {name!r}')
    if device.type != 'cuda':
        precision = torch.float32  # what was measured holds whatever a profile says of a GPU

    # weights laid out anew in another mode than the one they were made in are of no use in either
    inference = any(tensor.is_inference() for tensor in model.parameters())
    threads = torch.get_num_threads()

    def make(entry: str) -> Engine:
        # a frame may have put torch on one thread, see `engines.crowding`
        torch.set_num_threads(max(1, threads // lanes))
        more = {'lanes': lanes} if lanes > 1 and entry.startswith('openvino') else {}
        with torch.inference_mode(inference):
            return ENGINES[entry](model, device, precision, features, **more)

    if name != 'auto':
        names, choices = [name, *SIMPLER.get(name, ['eager'])], None
    else:
        # Features feed memories that another engine may have filled: those stay in float32.
        names = candidates(device, hasattr(model, 'int8') and not features, live)
        gpu = torch.cuda.get_device_name(device) if device.type == 'cuda' else str(device)
        what = (network_key(model), f'{features} {precision}', processor(), gpu)
        about = '; '.join((*what, f'{threads} threads, {lanes} lanes', versions(), *names))
        choices = Choices(about) if len(names) > 1 else None
    spec = getattr(model, 'spec', InputSpec())
    return AdaptiveEngine(
        [(entry, functools.partial(make, entry)) for entry in names],
        prober(spec, device),
        measure=name == 'auto',
        live=live,
        choices=choices,
        note=note,
        lanes=lanes,
    )
