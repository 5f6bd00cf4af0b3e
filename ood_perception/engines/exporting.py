# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What exporters want: a function of tensors, traced while other threads compute frames."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import _symbolic_trace

from ood_perception.models.output import SegmentorOutput

OPSET = 20  # the first with GELU as one operator; TensorRT reads it from version 10 on

_one_export = threading.Lock()


class TupleOutput(nn.Module):
    """
    Wrap a segmentor so that it returns a tuple: logits, UEM logits, then the features, if wanted.

    Absent outputs are left out; which ones there are is known after the first forward pass.
    """

    def __init__(self, model: nn.Module, features: bool = True) -> None:
        super().__init__()
        self.model = model
        self.features = features
        self.present: tuple[bool, bool] | None = None
        # exporters put a module back into the mode that its outermost part says
        self.train(model.training)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """From normalised images (B, 3, h, w) to the tuple."""
        output = self.model(images)
        heads = (output.logits, output.ood)
        self.present = (heads[0] is not None, heads[1] is not None)
        features = tuple(output.features) if self.features else ()
        return tuple(head for head in heads if head is not None) + features

    def restore(self, tensors: Sequence[Tensor]) -> SegmentorOutput:
        """Put the tuple back into a SegmentorOutput."""
        assert self.present is not None, 'no forward pass yet'
        rest = list(tensors)
        logits = rest.pop(0) if self.present[0] else None
        ood = rest.pop(0) if self.present[1] else None
        return SegmentorOutput(features=rest, logits=logits, ood=ood)


def twin(model: nn.Module) -> nn.Module:
    """Copy a model that shares its weights: an export puts others in their place while it runs."""
    weights = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in weights})


@contextlib.contextmanager
def in_this_thread() -> Iterator[None]:
    """
    Keep to this thread what an export does to all modules.

    It replaces methods of `nn.Module` itself. What other threads compute would be traced along,
    and they and the export fail.
    """
    patcher, owner = _symbolic_trace._Patcher, threading.get_ident()
    patch_method = patcher.patch_method

    def patch(self: Any, cls: type, name: str, new: Callable[..., Any], **options: Any) -> None:
        old = getattr(cls, name)

        @functools.wraps(old)
        def method(*arguments: Any, **named: Any) -> Any:
            mine = threading.get_ident() == owner
            return (new if mine else old)(*arguments, **named)

        patch_method(self, cls, name, method, **options)

    with _one_export:
        patcher.patch_method = patch  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            patcher.patch_method = patch_method  # type: ignore[method-assign]


@contextlib.contextmanager
def tables_kept(model: nn.Module) -> Iterator[None]:
    """
    Let layers with `tables` compute what depends on weights and size alone once while this runs.

    What is exported after a first call then holds it as a constant: an engine has less to do, and
    TensorRT lacks the operator that resamples the positions of DINOv2.
    """
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, 'tables')]
    for layer in layers:
        layer.tables = {}
    try:
        yield
    finally:
        for layer in layers:
            layer.tables = None


def export_onnx(
    network: nn.Module, inputs: Tensor | tuple[Tensor, ...], path: str | Path, batch: bool = True
) -> list[str]:
    """
    Write a network as ONNX, opset `OPSET`, by torch.export: for one image size and any batch.

    The network is in evaluation mode on the CPU, a segmentor in a `TupleOutput`. Its inputs are an
    example of `images`, or of several inputs `input_0`, .... The names of its outputs are
    returned. Without `batch` it is for the batch of the example, as are networks whose `any_batch`
    is False.
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
