# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""PyTorch as it is, and through torch.compile with static shapes, on a GPU as a CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ood_perception.engines.base import Shape
from ood_perception.engines.export import TupleOutput
from ood_perception.models.output import SegmentorOutput

MAX_SHAPES = 16  # shapes that are compiled; torch itself gives up, silently, after 8


# a captured CUDA graph with the memory that it reads and writes
Graph = tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]


class EagerEngine:
    """Run a segmentor as written; in half precision, by autocast, on a GPU only."""

    name = 'eager'
    rounded = False
    channels_last = True

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        self._model = model.eval().to(device).to(memory_format=torch.channels_last)
        self._device = device.type
        self._precision = precision
        self._features = features
        self._half = device.type == 'cuda' and precision != torch.float32

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """Run the network, see `base.Engine`."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device, dtype=self._precision, enabled=self._half):
            output: SegmentorOutput = self._model(images)
        if not self._features:
            output.features = []
        return output

    def prepare(self, shape: Shape) -> None:
        """Nothing to prepare."""

    def shapes(self) -> None:
        """Every shape runs at once."""


class CompiledEngine:
    """
    Run a segmentor through torch.compile, one compilation for each shape (seconds to minutes).

    On a GPU each shape is captured as a CUDA graph by the thread that calls the engine, at its
    first call: torch's own capture (`mode='reduce-overhead'`) belongs to the thread that compiled,
    which here may be one that has ended. It follows "Whole network capture" in PyTorch's notes on
    CUDA semantics. The output is overwritten by the next call at the same shape.
    """

    name = 'compiled'
    channels_last = True

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        model = model.eval().to(device).to(memory_format=torch.channels_last)
        self._network = TupleOutput(model, features)
        self._device = device
        self._precision = precision
        # fused operators round elsewhere than the eager engine
        self.rounded = self._half = device.type == 'cuda' and precision != torch.float32
        self._compiled = torch.compile(self._network, dynamic=False)
        self._graphs: dict[Shape, Graph] = {}
        self._shapes: list[Shape] = []

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """Run the network, see `base.Engine`."""
        shape = tuple(images.shape)
        if shape not in self._shapes:
            self.prepare(shape)
        if self._device.type != 'cuda':
            return self._network.restore(self._run(images))
        if shape not in self._graphs:
            self._graphs[shape] = self._capture(shape)
        graph, inputs, outputs = self._graphs[shape]
        inputs.copy_(images)
        graph.replay()
        return self._network.restore(outputs)

    def prepare(self, shape: Shape) -> None:
        """Compile for a shape. Raises RuntimeError where there are `MAX_SHAPES` already."""
        if len(self._shapes) >= MAX_SHAPES:
            raise RuntimeError(f'compiled: {MAX_SHAPES} shapes are compiled; no room for {shape}')
        images = self._zeros(shape)
        if self._network.present is None:
            with self._autocast():
                self._network(images)
        self._run(images)
        self._shapes.append(shape)

    def shapes(self) -> list[Shape]:
        """Shapes that are compiled."""
        return list(self._shapes)

    def _zeros(self, shape: Shape) -> Tensor:
        images = torch.zeros(shape, device=self._device)
        return images.to(memory_format=torch.channels_last)

    def _run(self, images: Tensor) -> tuple[Tensor, ...]:
        # pixels that lie otherwise, or another mode of autograd, would be compiled anew
        images = images.to(memory_format=torch.channels_last)
        with (
            torch.inference_mode(),
            torch._dynamo.config.patch(recompile_limit=MAX_SHAPES),
            self._autocast(),
        ):
            outputs: tuple[Tensor, ...] = self._compiled(images)
        return outputs

    def _capture(self, shape: Shape) -> Graph:
        with torch.cuda.device(self._device):
            images = self._zeros(shape)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # what is allocated or tuned at first must not be captured
                    self._run(images)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # other threads (an upload, a second pipeline) may call CUDA during the capture
            with torch.cuda.graph(graph, capture_error_mode='thread_local'):
                outputs = self._run(images)
        return graph, images, outputs

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=self._precision, enabled=self._half)
