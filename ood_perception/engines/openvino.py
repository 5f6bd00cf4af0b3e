# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""OpenVINO: the fastest engine for the networks of this package on an x86 CPU."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.eager import EagerEngine
from ood_perception.engines.flat import Flat
from ood_perception.engines.onnx import export_onnx
from ood_perception.models.output import SegmentorOutput

MAX_COMPILED = 8
"""Shapes (B, h, w) kept ready at a time; the one that was not used for longest goes first."""


class OpenVINOEngine:
    """
    Run a segmentor with OpenVINO on the CPU, in float32.

    A network is compiled for each batch and image size, which takes part of a second: with a batch
    left open it would be a tenth slower.

    Raises:
        ValueError: a device that is not the CPU.

    """

    bfloat16 = False

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        if device.type != 'cpu':
            raise ValueError(f'openvino runs on the CPU, got device {device}')
        _core()
        self._flat = Flat(model.eval().float().cpu(), features)
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """From float32 (B, 3, h, w) normalised images to the segmentor's output."""
        shape = tuple(images.shape)
        request = self._requests.get(shape)
        if request is None:
            request = self._compile(shape)
            if len(self._requests) >= MAX_COMPILED:
                self._requests.popitem(last=False)
            self._requests[shape] = request
        self._requests.move_to_end(shape)
        found = request.infer({0: images.contiguous().numpy()}, share_inputs=True)
        # infer() returns copies: a later call does not overwrite them
        return self._flat.restore([torch.from_numpy(array) for array in found.values()])

    def _compile(self, shape: tuple[int, ...]) -> Any:
        """Return an inference request for images of this shape."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'model.onnx'
            export_onnx(self._flat, torch.zeros(1, *shape[1:]), path)
            return compile_network(path, shape, torch.get_num_threads(), self.bfloat16)


class OpenVINOBfloat16Engine(OpenVINOEngine):
    """
    Run a segmentor with OpenVINO in bfloat16; images and outputs are float32.

    Worth it on CPUs with matrix units for it (AMX), see `benchmarks/int8.py`.
    """

    bfloat16 = True


class OpenVINOInt8Engine(OpenVINOEngine):
    """
    Run the int8 form of a segmentor, which it makes itself, with OpenVINO.

    Worth it on CPUs with instructions for it (VNNI), see `benchmarks/int8.py`.

    Attributes:
        reference: the same rounding simulated in PyTorch, which this has to agree with.

    Raises:
        ValueError: a device that is not the CPU, or a segmentor without an int8 form.

    """

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        if not hasattr(model, 'int8'):
            raise ValueError(f'{type(model).__name__} has no int8 form')
        twin: nn.Module = model.int8()  # type: ignore[operator]
        super().__init__(twin, device, precision, features)
        self.reference = EagerEngine(twin, device, precision, features)


def compile_network(
    network: Path | bytes, shape: tuple[int, ...], threads: int, bfloat16: bool = False
) -> Any:
    """
    Compile an ONNX network with one input for the CPU.

    Args:
        network: the file, or what is in it.
        shape: of the input, (B, 3, h, w).
        threads: to use.
        bfloat16: compute in bfloat16, not float32; inputs and outputs are float32 either way.

    Returns:
        An inference request of OpenVINO.

    """
    model = _core().read_model(network)
    model.reshape(list(shape))
    options = {
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_NUM_THREADS': threads,
        'INFERENCE_PRECISION_HINT': 'bf16' if bfloat16 else 'f32',
    }
    return _core().compile_model(model, 'CPU', options).create_infer_request()


def _core() -> Any:
    """
    Return OpenVINO's one core of this process.

    Raises:
        RuntimeError: the process that this one was forked from has it; its threads stayed there.

    """
    core, process = _started()
    if process != os.getpid():
        raise RuntimeError('OpenVINO was in use when this process was forked')
    return core


@functools.cache
def _started() -> tuple[Any, int]:
    # Its import reports over the network that it was imported, where openvino_telemetry, which it
    # requires, can be imported too. A robot does not call home.
    reporter = 'openvino_telemetry'
    if reporter not in sys.modules:
        sys.modules[reporter] = None  # type: ignore[assignment]
    import openvino

    # One, and for good: each core gives the thread a stack for signals and puts back the one
    # before when it goes. Of several that come and go, one puts back a stack that is gone, and the
    # next signal (a worker's end, Ctrl-C) kills the process.
    return openvino.Core(), os.getpid()
