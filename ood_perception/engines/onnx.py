# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""ONNX: export of a segmentor, and the engine that runs the export with ONNX Runtime."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.base import Shape
from ood_perception.engines.tuple_output import TupleOutput
from ood_perception.models.output import SegmentorOutput

MAX_SESSIONS = 4
"""Image sizes kept ready at a time; a fifth size replaces the oldest."""


def export_onnx(network: TupleOutput, images: Tensor, path: str | Path) -> list[str]:
    """
    Write a segmentor as ONNX, opset 17, for one image size and any batch.

    Args:
        network: the segmentor, in evaluation mode on the CPU.
        images: float32 (B, 3, h, w), an example of the input.
        path: of the file to write.

    Returns:
        Names of the outputs, in the order of the tuple of `network`.

    """
    with torch.no_grad():
        count = len(network(images))
    names = [f'output_{i}' for i in range(count)]
    with warnings.catch_warnings(), torch.no_grad():
        # shapes are constants of the size that is exported, which is what the tracer warns of
        warnings.simplefilter('ignore')
        logging.getLogger('torch.onnx').setLevel(logging.ERROR)
        torch.onnx.export(
            network,
            (images,),
            str(path),
            input_names=['images'],
            output_names=names,
            dynamic_axes={name: {0: 'batch'} for name in ('images', *names)},
            opset_version=17,
            dynamo=False,
        )
    return names


class OnnxRuntimeEngine:
    """
    Run a segmentor with ONNX Runtime on the CPU; one session an image size, any batch.

    Args:
        model: segmentor.
        device: has to be a CPU.
        precision: not used; it computes in float32.
        features: False leaves them out of the output.

    Raises:
        ValueError: another device. On a GPU, export the network (`ood export`) and run it with
            the provider that fits there.
        ImportError: onnx or onnxruntime is not installed.

    """

    name = 'onnxruntime'
    rounded = False
    channels_last = False

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        if device.type != 'cpu':
            raise ValueError(f'onnxruntime runs on the CPU, got device {device}')
        import onnx  # noqa: F401  (the export needs it)
        import onnxruntime

        self._ort = onnxruntime
        self._network = TupleOutput(model.eval().float(), features)
        self._sessions: dict[tuple[int, int], Any] = {}
        self._prepared: list[Shape] = []

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """From float32 (B, 3, h, w) normalised images to the segmentor's output."""
        self.prepare(tuple(images.shape))  # type: ignore[arg-type]
        session = self._sessions[images.shape[2], images.shape[3]]
        arrays = session.run(None, {'images': images.contiguous().numpy()})
        return self._network.restore([torch.from_numpy(array) for array in arrays])

    def prepare(self, shape: Shape) -> None:
        """Export and load the network for an image size."""
        size = shape[2:]
        if size not in self._sessions:
            session = self._open(size)
            if len(self._sessions) >= MAX_SESSIONS:
                oldest = next(iter(self._sessions))
                del self._sessions[oldest]
                self._prepared = [s for s in self._prepared if s[2:] != oldest]
            self._sessions[size] = session
        if shape not in self._prepared:
            self._prepared.append(shape)

    def shapes(self) -> list[Shape]:
        """Shapes that were asked for and are ready; others of their sizes take no time."""
        return list(self._prepared)

    def _open(self, size: tuple[int, int]) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'model.onnx'
            export_onnx(self._network, torch.zeros(1, 3, *size), path)
            data = self._fold(path).read_bytes()
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # a spinning thread pool takes the cores from the rest of the pipeline
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        return self._ort.InferenceSession(data, options, providers=['CPUExecutionProvider'])

    def _fold(self, path: Path) -> Path:
        # ONNX Runtime looks for paddings to merge into convolutions before it folds constants,
        # and the exporter computes paddings: only a second pass, over a folded graph, finds them.
        options = self._ort.SessionOptions()
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path.with_name('folded.onnx'))
        options.log_severity_level = 3
        self._ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        return path.with_name('folded.onnx')
