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
from ood_perception.engines.exporting import in_this_thread, twin
from ood_perception.engines.tuple_output import TupleOutput
from ood_perception.models.folding import tables_kept
from ood_perception.models.output import SegmentorOutput

OPSET = 20
"""The first with GELU as one operator; TensorRT reads it from version 10 on."""

MAX_SESSIONS = 4
"""Image sizes kept ready at a time; a fifth size replaces the oldest."""


def export_onnx(
    network: nn.Module, inputs: Tensor | tuple[Tensor, ...], path: str | Path, batch: bool = True
) -> list[str]:
    """
    Write a network as ONNX, opset `OPSET`, by torch.export: for one image size and any batch.

    Args:
        network: in evaluation mode on the CPU; a segmentor in a `TupleOutput`.
        inputs: an example of the input `images`, or of several inputs `input_0`, ....
        path: of the file to write.
        batch: False writes the batch of the example, as do networks whose `any_batch` is False.

    Returns:
        Names of the outputs, in the order of the tuple of `network`.
    """
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    batch = batch and takes_any_batch(network)
    # an exporter refuses tensors of inference mode, which this may be called in
    with (
        torch.inference_mode(False), torch.no_grad(), tables_kept(network),
        in_this_thread(), warnings.catch_warnings(),
    ):  # fmt: skip
        warnings.simplefilter('ignore')
        logging.getLogger('torch.onnx').setLevel(logging.ERROR)
        # a batch of one in the example would be one for ever
        inputs = tuple(torch.cat([x, x]) if batch and len(x) == 1 else x.clone() for x in inputs)
        outputs = network(*inputs)
        names = [f'output_{i}' for i in range(1 if isinstance(outputs, Tensor) else len(outputs))]
        several = [f'input_{i}' for i in range(len(inputs))]
        program = torch.onnx.export(
            network,
            inputs,
            input_names=several if len(several) > 1 else ['images'],
            output_names=names,
            dynamic_shapes=tuple({0: torch.export.Dim('batch')} for _ in inputs)
            if batch
            else None,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))
    return names


def takes_any_batch(network: nn.Module) -> bool:
    """Whether a network is exported for any batch; a segmentor without `any_batch` is."""
    return bool(getattr(getattr(network, 'model', None), 'any_batch', True))


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
        ImportError: onnxruntime or onnxscript is not installed.
    """

    name = 'onnxruntime'
    rounded = False
    channels_last = False

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        if device.type != 'cpu':
            raise ValueError(f'onnxruntime runs on the CPU, got device {device}')
        import onnxruntime
        import onnxscript  # noqa: F401  (the export needs it)

        self._ort = onnxruntime
        self._network = TupleOutput(twin(model.eval().float()), features)
        self._sessions: dict[tuple[int, ...], Any] = {}
        self._prepared: list[Shape] = []

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """From float32 (B, 3, h, w) normalised images to the segmentor's output."""
        shape: Shape = tuple(images.shape)  # type: ignore[assignment]
        self.prepare(shape)
        session = self._sessions[self._key(shape)]
        arrays = session.run(None, {'images': images.contiguous().numpy()})
        return self._network.restore([torch.from_numpy(array) for array in arrays])

    def prepare(self, shape: Shape) -> None:
        """Export and load the network for an image size."""
        key = self._key(shape)
        if key not in self._sessions:
            session = self._open(shape)
            if len(self._sessions) >= MAX_SESSIONS:
                oldest = next(iter(self._sessions))
                del self._sessions[oldest]
                self._prepared = [s for s in self._prepared if self._key(s) != oldest]
            self._sessions[key] = session
        if shape not in self._prepared:
            self._prepared.append(shape)

    def shapes(self) -> list[Shape]:
        """Shapes that were asked for and are ready; others of their sizes take no time."""
        return list(self._prepared)

    def _key(self, shape: Shape) -> tuple[int, ...]:
        return shape[2:] if takes_any_batch(self._network) else shape

    def _open(self, shape: Shape) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # a spinning thread pool takes the cores from the rest of the pipeline
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'model.onnx'
            export_onnx(self._network, torch.zeros(shape), path)
            return self._ort.InferenceSession(path, options, providers=['CPUExecutionProvider'])
