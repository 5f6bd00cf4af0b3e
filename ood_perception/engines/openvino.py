# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""OpenVINO: the fastest engine for the networks of this package on an x86 CPU."""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
import os
import queue
import sys
import tempfile
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.base import Shape
from ood_perception.engines.choices import cache_folder, keep, network_key, versions
from ood_perception.engines.crowding import CrowdedRequest
from ood_perception.engines.export import TupleOutput
from ood_perception.engines.measure import prober
from ood_perception.models.output import InputSpec, SegmentorOutput

log = logging.getLogger(__name__)

_one_conversion = threading.Lock()

MAX_COMPILED = 8  # image sizes kept ready; the one that was not used for longest goes first


class OpenVINOEngine:
    """
    Run a segmentor with OpenVINO on the CPU, in float32, bfloat16 or int8, as `form` says.

    Bfloat16 is worth it on CPUs with matrix units for it (AMX), see `benchmarks/int8.py`; a CPU
    that does not compute in it, and a segmentor without an int8 form, are a ValueError. Images and
    outputs are float32 in all forms.

    A network is converted (seconds) and compiled (part of a second) for each image size. What was
    converted is kept in the folder of :func:`cache_folder`, so the next start only compiles. The
    images of a batch run one after the other: on a few cores that takes as long as together. With
    `lanes` that many threads may call at once; each call has torch's number of threads.
    """

    name = 'openvino'
    channels_last = False

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        precision: torch.dtype,
        features: bool = True,
        form: str = 'float32',
        lanes: int = 1,
    ) -> None:
        if device.type != 'cpu':
            raise ValueError(f'openvino runs on the CPU, got device {device}')
        if form == 'int8' and not hasattr(model, 'int8'):
            raise ValueError(f'{type(model).__name__} has no int8 form')
        self.rounded, self._bfloat16 = form != 'float32', form == 'bfloat16'
        able = _core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        if self._bfloat16 and 'BF16' not in able:
            raise ValueError('this CPU has no instructions for bfloat16')
        model = int8_form(model) if form == 'int8' else model
        if any(tensor.is_inference() for tensor in model.parameters()):
            with torch.inference_mode(False):
                model = copy.deepcopy(model)  # weights of inference mode cannot be exported
        self._network = TupleOutput(model.eval().float(), features)
        self._key = ''
        self._threads, self._lanes = torch.get_num_threads(), lanes
        self._preparing = threading.Lock()
        self._requests: OrderedDict[Shape, queue.SimpleQueue[Any]] = OrderedDict()

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """Run the network, see `base.Engine`."""
        requests = self._requests_of(tuple(images.shape))
        request = requests.get()
        try:
            # infer() returns copies: a later call does not overwrite them
            found = [
                [
                    torch.from_numpy(a)
                    for a in request.infer({0: image}, share_inputs=True).values()
                ]
                for image in images.contiguous().numpy()[:, None]
            ]
        finally:
            requests.put(request)
        maps = (m[0] if len(m) == 1 else torch.cat(m) for m in zip(*found, strict=True))
        return self._network.restore(list(maps))

    def prepare(self, shape: Shape) -> None:
        """Convert and compile the network for an image size."""
        self._requests_of(shape)

    def _requests_of(self, shape: Shape) -> queue.SimpleQueue[Any]:
        key = (0, *shape[1:])
        with self._preparing:
            if key not in self._requests:
                requests = self._open((1, *shape[1:]))
                if len(self._requests) >= MAX_COMPILED:
                    self._requests.popitem(last=False)
                self._requests[key] = requests
            self._requests.move_to_end(key)
            return self._requests[key]

    def shapes(self) -> list[Shape]:
        """Image sizes that are ready, for any batch."""
        return list(self._requests)

    def _open(self, shape: Shape) -> queue.SimpleQueue[Any]:
        """Requests of an image size, one for each lane."""
        if self._network.present is None:
            with torch.inference_mode():
                self._network(torch.zeros(shape))
        if not self._key:
            self._key = f'{network_key(self._network)} {self._network.features} {versions()}'
        network = converted(self._network, shape, self._key)
        requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        compiled = compile_network(network, shape, self._threads, self._bfloat16, self._lanes)
        for _ in range(self._lanes):
            requests.put(compiled.create_infer_request())
        if self._lanes == 1 and self._threads > 1:
            single = compile_network(network, shape, 1, self._bfloat16).create_infer_request()
            requests.put(CrowdedRequest(requests.get(), single))
        return requests


def int8_form(model: nn.Module) -> nn.Module:
    """Copy of a segmentor in int8; ranges that it does not bring come from the probe's frames."""
    spec = getattr(model, 'spec', InputSpec())
    frames = prober(spec, torch.device('cpu'))((3, 3, 288, 384))
    return model.int8(frames)  # type: ignore[operator,no-any-return]


def converted(network: nn.Module, shape: tuple[int, ...], key: str) -> Any:
    """Read the OpenVINO form of a network that is kept under a key, or convert and keep it."""
    name = hashlib.sha256(f'{key} {shape}'.encode()).hexdigest()[:32]
    path = cache_folder() / f'network-{name}.ov'
    found = read_network(path)
    if found is None:
        found = convert(network, shape)
        keep_network(path, found)
    return found


def convert(network: nn.Module, shape: tuple[int, ...]) -> Any:
    """
    Convert a network from one tensor of a shape to one or several, to an openvino.Model.

    By torch's own tracing, which keeps to its thread: a node computes frames while it converts.
    """
    _core()
    import openvino

    # For good: `warnings.catch_warnings` does not keep to its thread. The shape is meant fixed.
    warnings.filterwarnings('ignore', category=torch.jit.TracerWarning)
    warnings.filterwarnings('ignore', message='.*torch.jit.trace', category=FutureWarning)
    images = torch.zeros(shape)
    # what is made under inference mode has no version counter, which tracing asks for
    exact = torch.autocast('cpu', enabled=False)
    with _one_conversion, torch.inference_mode(False), torch.no_grad(), exact:
        # Traced here, not by OpenVINO, which holds the interpreter for seconds meanwhile.
        traced = torch.jit.trace(network, images, check_trace=False)
        return openvino.convert_model(traced, example_input=images, input=shape)


def keep_network(path: Path, network: Any) -> None:
    """Keep a converted network in one file; where that fails the next start converts it again."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / 'network.xml'
        openvino.save_model(network, xml, compress_to_fp16=False)
        graph, weights = xml.read_bytes(), xml.with_suffix('.bin').read_bytes()
    data = len(graph).to_bytes(8, 'little') + graph + weights
    keep(path, hashlib.sha256(data).digest() + data)


def read_network(path: Path) -> Any | None:
    """Read a kept network; None where there is none, and with a line where it is damaged."""
    try:
        kept = path.read_bytes()
        digest, data = kept[:32], kept[32:]
        if hashlib.sha256(data).digest() != digest:
            raise ValueError('it is damaged')
        end = 8 + int.from_bytes(data[:8], 'little')
        return _core().read_model(data[8:end], data[end:])
    except FileNotFoundError:
        return None
    except Exception as error:
        log.warning('%s cannot be used (%s); converting the network again', path, error)
        return None


def compile_network(
    network: Any, shape: tuple[int, ...], threads: int, bfloat16: bool = False, lanes: int = 1
) -> Any:
    """
    Compile a network with one input of a shape for so many threads of the CPU.

    The network is an openvino.Model, or the path or content of an ONNX file. With `bfloat16` it
    computes in that; inputs and outputs are float32. So many requests as there are `lanes` may run
    at once, each on `threads` threads. Returns an openvino.CompiledModel.
    """
    if isinstance(network, (str, bytes, Path)):
        network = _core().read_model(network)
    network.reshape(list(shape))
    options = {
        'PERFORMANCE_HINT': 'LATENCY',
        'INFERENCE_NUM_THREADS': threads * lanes,
        'NUM_STREAMS': lanes,
        # A thread that is tied to a core cannot leave it to another process.
        'ENABLE_CPU_PINNING': False,
        'INFERENCE_PRECISION_HINT': 'bf16' if bfloat16 else 'f32',
    }
    return _core().compile_model(network, 'CPU', options)


def _core() -> Any:
    """
    OpenVINO's one core of this process.

    RuntimeError in a process that was forked from one that has it: its threads stayed there.
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
