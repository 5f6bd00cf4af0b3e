# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
TensorRT engine through torch-tensorrt, with engines cached on disk.

It never ran on a GPU. `benchmarks/tensorrt_build.py` takes :func:`build` as far as a machine
without one allows: up to how torch-tensorrt would cut each network into engines.
"""

from __future__ import annotations

import copy
import hashlib
import logging
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.base import Shape
from ood_perception.engines.choices import cache_folder, delete_old, network_key
from ood_perception.engines.export import TupleOutput, in_this_thread, twin
from ood_perception.models.output import SegmentorOutput

log = logging.getLogger(__name__)


class TensorRTEngine:
    """
    Run a segmentor as a TensorRT engine, one an input shape.

    torch-tensorrt types explicitly: a float16 engine is built from a float16 copy.
    """

    name = 'tensorrt'
    channels_last = False

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        try:
            import torch_tensorrt
        except ImportError as error:
            raise ImportError(
                'the tensorrt engine needs torch-tensorrt: pip install "ood_perception[gpu]"'
            ) from error
        if device.type != 'cuda':
            raise ValueError(f'the tensorrt engine needs a GPU, the device is {device}')
        self._trt = torch_tensorrt
        self._device = device
        self._precision = precision
        self.rounded = precision != torch.float32
        model = in_precision(model, precision) if self.rounded else twin(model)
        self._network = TupleOutput(model.eval().to(device), features)
        self._engines: dict[Shape, Any] = {}

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """Run the network, see `base.Engine`."""
        shape = tuple(images.shape)
        self.prepare(shape)
        images = images.to(self._precision, memory_format=torch.contiguous_format)
        outputs = self._engines[shape](images)
        return self._network.restore([tensor.float() for tensor in outputs])

    def prepare(self, shape: Shape) -> None:
        """Load the engine for a shape, or build it, which takes minutes."""
        if shape not in self._engines:
            with torch.cuda.device(self._device):
                self._engines[shape] = self._load_or_build(shape)

    def shapes(self) -> list[Shape]:
        """Shapes that are built."""
        return list(self._engines)

    def _load_or_build(self, shape: Shape) -> Any:
        images = torch.zeros(shape, device=self._device, dtype=self._precision)
        if self._network.present is None:
            self._network(images)
        platform = (
            f'{torch.cuda.get_device_name(self._device)} torch {torch.__version__} '
            f'cuda {torch.version.cuda} torch-tensorrt {self._trt.__version__}'
        )
        about = f'{network_key(self._network)} {shape} {self._network.features} {platform}'
        name = hashlib.sha256(about.encode()).hexdigest()[:32]
        path = cache_folder() / f'tensorrt-{name}.ep'
        if path.is_file():
            try:
                return torch.export.load(str(path)).module()
            except Exception as error:  # a cache is never worth a crash
                log.warning('kept engine %s cannot be used (%s); building anew', path, error)
        log.info('building a TensorRT engine for %s; the next start finds it in %s', shape, path)
        engine = build(self._network, (images,), device=self._device)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix('.partial')
            with torch.inference_mode(False), torch.no_grad():
                self._trt.save(engine, str(partial), inputs=[images.clone()])
            partial.replace(path)
            delete_old(path.parent)
        except Exception as error:
            log.warning('the engine cannot be kept in %s (%s)', path, error)
        return engine


def in_precision(model: nn.Module, precision: torch.dtype) -> nn.Module:
    """Copy a model and round its parameters, but for those of layers that are `exact`."""
    rounded = copy.deepcopy(model).to(precision)
    for layer, source in zip(rounded.modules(), model.modules(), strict=True):
        if getattr(layer, 'exact', False):
            layer.to(torch.float32).load_state_dict(source.state_dict())
    return rounded


def build(network: nn.Module, inputs: tuple[Tensor, ...], **options: Any) -> Any:
    """Compile a network in evaluation mode for example inputs by `torch_tensorrt.dynamo`."""
    import torch_tensorrt

    with torch.inference_mode(False), torch.no_grad(), in_this_thread():
        inputs = tuple(x.clone() for x in inputs)  # an exporter refuses tensors of inference mode
        program = torch.export.export(network, inputs)
        return torch_tensorrt.dynamo.compile(program, inputs=inputs, **options)
