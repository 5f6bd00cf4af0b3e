# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A frozen backbone run by OpenVINO or ONNX Runtime: about twice as fast as eager torch on a CPU.

Only a convenience of training: where neither can run it, or its numbers differ, torch computes the
features.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.openvino import compile_network

Features = Callable[[Tensor], list[Tensor]]

log = logging.getLogger(__name__)

TOLERANCE = 1e-3
"""Largest accepted difference, relative to the largest feature."""

BFLOAT16_TOLERANCE = 0.05
"""Largest accepted root mean square of the difference, relative to that of the features."""


def fast_features(
    backbone: nn.Module, images: Tensor, threads: int = 0, bfloat16: bool = False
) -> Features:
    """
    Return a function that computes what `backbone` does, for images of the size of `images`.

    Args:
        backbone: (B, C, H, W) -> list of maps, in evaluation mode.
        images: float (B, C, H, W), an example.
        threads: of the library, 0 = torch's number.
        bfloat16: try OpenVINO in bfloat16 first.

    Raises:
        ValueError: the backbone is in training mode.

    """

    def eager(batch: Tensor) -> list[Tensor]:
        return list(backbone(batch))

    if backbone.training:
        raise ValueError('the backbone is in training mode, and its export would leave it there')
    if images.device.type != 'cpu':
        return eager
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'backbone.onnx'
        for make in (*((_openvino_bfloat16,) if bfloat16 else ()), _openvino, _onnxruntime):
            try:
                wanted = eager(images)
                _export(backbone, images, path, len(wanted))
                run = make(path, eager, images, threads or torch.get_num_threads())
                rounded = make is _openvino_bfloat16
                size = _rms if rounded else _largest
                worst = max(
                    float(size(a - b) / size(b).clamp(min=1e-6))
                    for a, b in zip(run(images), wanted, strict=True)
                )
                limit = BFLOAT16_TOLERANCE if rounded else TOLERANCE
                if not worst <= limit:
                    raise ValueError(f'features differ by {worst:.2g}')
                return run
            except Exception as error:
                log.info('frozen backbone: not by%s (%s)', make.__name__.replace('_', ' '), error)
    return eager


def _largest(maps: Tensor) -> Tensor:
    return maps.abs().max()


def _rms(maps: Tensor) -> Tensor:
    return maps.square().mean().sqrt()


def _export(backbone: nn.Module, images: Tensor, path: Path, maps: int) -> None:
    names = [f'map{i}' for i in range(maps)]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            backbone,
            (images,),
            str(path),
            dynamo=False,
            input_names=['images'],
            output_names=names,
            dynamic_axes={name: {0: 'batch'} for name in ('images', *names)},
        )


def _openvino_bfloat16(path: Path, eager: Features, images: Tensor, threads: int) -> Features:
    return _openvino(path, eager, images, threads, bfloat16=True)


def _openvino(
    path: Path, eager: Features, images: Tensor, threads: int, bfloat16: bool = False
) -> Features:
    # one request a batch size: with an open one OpenVINO is slower, and a run has few
    requests: dict[Any, Any] = {}
    network = path.read_bytes()

    def run(batch: Tensor) -> list[Tensor]:
        if batch.shape[1:] != images.shape[1:]:
            return eager(batch)
        if batch.shape not in requests:
            compiled = compile_network(network, tuple(batch.shape), threads, bfloat16)
            requests[batch.shape] = compiled.create_infer_request()
        found = requests[batch.shape].infer({0: batch.contiguous().numpy()}, share_inputs=True)
        return [torch.from_numpy(m) for m in found.values()]

    return run


def _onnxruntime(path: Path, eager: Features, images: Tensor, threads: int) -> Features:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # a spinning thread pool takes the cores from the heads' training step
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=['CPUExecutionProvider']
    )

    def run(batch: Tensor) -> list[Tensor]:
        if batch.shape[1:] != images.shape[1:]:
            return eager(batch)
        return [torch.from_numpy(m) for m in session.run(None, {'images': batch.numpy()})]

    return run
