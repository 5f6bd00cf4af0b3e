# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""ONNX: export of a segmentor, and the engine that runs the export with ONNX Runtime."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ood_perception.engines.flat import Flat
from ood_perception.models.output import SegmentorOutput

MAX_SESSIONS = 4
"""Image sizes kept ready at a time; a fifth size replaces the oldest."""


def export_onnx(flat: Flat, images: Tensor, path: str | Path) -> list[str]:
    """
    Write a segmentor as ONNX, opset 17, for one image size and any batch.

    Args:
        flat: the segmentor, in evaluation mode on the CPU.
        images: float32 (B, 3, h, w), an example of the input.
        path: of the file to write.

    Returns:
        Names of the outputs, in the order of the tuple of `Flat`.

    """
    with torch.no_grad():
        count = len(flat(images))
    names = [f'output_{i}' for i in range(count)]
    with warnings.catch_warnings(), torch.no_grad():
        # shapes are constants of the size that is exported, which is what the tracer warns of
        warnings.simplefilter('ignore')
        logging.getLogger('torch.onnx').setLevel(logging.ERROR)
        torch.onnx.export(
            flat,
            (images,),
            str(path),
            input_names=['images'],
            output_names=names,
            dynamic_axes={name: {0: 'batch'} for name in ('images', *names)},
            opset_version=17,
            dynamo=False,
        )
    return names


def providers(device: torch.device) -> list[Any]:
    """ONNX Runtime execution providers to try on `device`, best first."""
    import onnxruntime

    wanted: list[Any] = ['CPUExecutionProvider']
    if device.type == 'cuda':
        index = {'device_id': str(device.index or 0)}
        cache = {'trt_engine_cache_enable': '1', 'trt_fp16_enable': '1'}
        wanted = [
            ('TensorrtExecutionProvider', {**index, **cache}),
            ('CUDAExecutionProvider', index),
            *wanted,
        ]
    available = onnxruntime.get_available_providers()
    return [p for p in wanted if (p if isinstance(p, str) else p[0]) in available]


class OnnxRuntimeEngine:
    """
    Run a segmentor with ONNX Runtime; one session an image size, any batch.

    On a GPU the images are taken from and the outputs bound to device memory (no copy to the
    host); the CPU provider shares memory with torch.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        import onnxruntime

        self._ort = onnxruntime
        self._flat = Flat(model.eval().float().cpu(), features)
        self._device = device
        self._sessions: dict[tuple[int, int], Any] = {}
        self._shapes: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        self.providers: list[str] = []

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """From float32 (B, 3, h, w) normalised images to the segmentor's output."""
        size = (int(images.shape[2]), int(images.shape[3]))
        session = self._sessions.get(size)
        if session is None:
            session = self._open(size)
        if self._device.type == 'cuda':
            return self._flat.restore(self._run_on_device(session, images))
        arrays = session.run(None, {'images': images.contiguous().numpy()})
        return self._flat.restore([torch.from_numpy(array) for array in arrays])

    def _open(self, size: tuple[int, int]) -> Any:
        example = torch.zeros(1, 3, *size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'model.onnx'
            export_onnx(self._flat, example, path)
            data = self._fold(path).read_bytes()
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # a spinning thread pool takes the cores from the rest of the pipeline
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        session = self._ort.InferenceSession(data, options, providers=providers(self._device))
        self.providers = session.get_providers()
        if len(self._sessions) >= MAX_SESSIONS:
            oldest = next(iter(self._sessions))
            del self._sessions[oldest], self._shapes[oldest]
        self._sessions[size] = session
        self._shapes[size] = [tuple(tensor.shape[1:]) for tensor in self._flat(example)]
        return session

    def _fold(self, path: Path) -> Path:
        # ONNX Runtime looks for paddings to merge into convolutions before it folds constants,
        # and the exporter computes paddings: only a second pass, over a folded graph, finds them.
        options = self._ort.SessionOptions()
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path.with_name('folded.onnx'))
        options.log_severity_level = 3
        self._ort.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
        return path.with_name('folded.onnx')

    def _run_on_device(self, session: Any, images: Tensor) -> list[Tensor]:
        images = images.contiguous()
        binding = session.io_binding()
        index = self._device.index or 0
        size = (int(images.shape[2]), int(images.shape[3]))
        binding.bind_input(
            'images', 'cuda', index, np.float32, tuple(images.shape), images.data_ptr()
        )
        outputs = []
        for value, shape in zip(session.get_outputs(), self._shapes[size], strict=True):
            output = images.new_empty((images.shape[0], *shape))
            binding.bind_output(
                value.name, 'cuda', index, np.float32, tuple(output.shape), output.data_ptr()
            )
            outputs.append(output)
        # ONNX Runtime works on a stream of its own
        torch.cuda.current_stream().synchronize()
        session.run_with_iobinding(binding)
        return outputs
