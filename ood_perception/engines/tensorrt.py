# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
TensorRT engine through torch-tensorrt, with engines cached on disk.

Written against the documentation of torch-tensorrt (`torch_tensorrt.compile`, ir='dynamo', and
`torch_tensorrt.save` / `torch.export.load`); its libraries could not be installed on the machines
that this package is tested on, so this path has not been run. Where torch-tensorrt is missing the
import fails with a message that says so, and the pipeline falls back to the compiled engine.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.flat import Flat
from ood_perception.models.output import SegmentorOutput

log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Folder of the built engines: $OOD_ENGINE_CACHE or ~/.cache/ood_perception/engines."""
    default = Path('~/.cache/ood_perception/engines').expanduser()
    return Path(os.environ.get('OOD_ENGINE_CACHE', default))


def cache_key(model: nn.Module, shape: tuple[int, ...], precision: str, platform: str) -> str:
    """
    Name of a built engine: another model, shape, precision, GPU or version gives another name.

    Args:
        model: its tensors are hashed by name, shape and content.
        shape: of the input.
        precision: name of the precision.
        platform: GPU name and versions of driver, torch and TensorRT.

    Returns:
        64 hexadecimal digits.

    """
    digest = hashlib.sha256(f'{type(model).__name__} {shape} {precision} {platform}'.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}'.encode())
        data = tensor.detach().contiguous().flatten().view(torch.uint8)
        digest.update(data.cpu().numpy().tobytes())
    return digest.hexdigest()


class TensorRTEngine:
    """
    Run a segmentor as a TensorRT engine, one an input shape.

    Raises:
        ImportError: torch-tensorrt is not installed.
        ValueError: the device is not a GPU.

    """

    def __init__(
        self, model: nn.Module, device: torch.device, precision: torch.dtype, features: bool = True
    ) -> None:
        if device.type != 'cuda':
            raise ValueError(f'the tensorrt engine needs a GPU, the device is {device}')
        try:
            import torch_tensorrt
        except ImportError as error:
            raise ImportError(
                'the tensorrt engine needs torch-tensorrt: pip install "ood_perception[gpu]"'
            ) from error
        self._trt = torch_tensorrt
        self._device = device
        self._precision = torch.float16 if precision != torch.float32 else torch.float32
        self._flat = Flat(model.eval().to(device), features)
        self._engines: dict[tuple[int, ...], Any] = {}

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """From float32 (B, 3, h, w) normalised images to the segmentor's output."""
        shape = tuple(images.shape)
        if shape not in self._engines:
            self._engines[shape] = self._load_or_build(images)
        return self._flat.restore(self._engines[shape](images.contiguous()))

    def _load_or_build(self, images: Tensor) -> Any:
        if self._flat.present is None:
            self._flat(images)
        platform = (
            f'{torch.cuda.get_device_name(self._device)} torch {torch.__version__} '
            f'cuda {torch.version.cuda} torch-tensorrt {self._trt.__version__}'
        )
        key = cache_key(self._flat, tuple(images.shape), str(self._precision), platform)
        path = cache_folder() / f'{key}.ep'
        if path.is_file():
            try:
                return torch.export.load(str(path)).module()
            except Exception as error:  # a cache is never worth a crash
                log.warning('engine cache %s cannot be used (%s); building anew', path, error)
        log.info('building a TensorRT engine for %s; the next start finds it in %s', key[:8], path)
        exported = torch.export.export(self._flat, (images,))
        engine = self._trt.dynamo.compile(
            exported,
            inputs=[images],
            enabled_precisions={self._precision},
            truncate_double=True,
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix('.partial')
            self._trt.save(engine, str(partial), inputs=[images])
            partial.replace(path)
        except Exception as error:
            log.warning('the engine could not be kept in %s (%s)', path, error)
        return engine
