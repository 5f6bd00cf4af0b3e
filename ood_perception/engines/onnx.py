# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The engine that runs an ONNX export with ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.base import Shape
from ood_perception.engines.export import TupleOutput, export_onnx, takes_any_batch, twin
from ood_perception.models.output import SegmentorOutput

MAX_SESSIONS = 4  # image sizes kept ready at a time; a fifth size replaces the oldest


class OnnxRuntimeEngine:
    """
    Run a segmentor with ONNX Runtime on the CPU, in float32; one session an image size, any batch.

    On a GPU, export the network (`ood export`) and run it with the provider that fits there.
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
        self._sessions: dict[Shape, Any] = {}

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """Run the network, see `base.Engine`."""
        shape = tuple(images.shape)
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
                del self._sessions[next(iter(self._sessions))]
            self._sessions[key] = session

    def shapes(self) -> list[Shape]:
        """Shapes that are ready."""
        return list(self._sessions)

    def _key(self, shape: Shape) -> Shape:
        return (0, *shape[1:]) if takes_any_batch(self._network) else shape

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
