# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Networks for other runtimes: as functions of tensors, as ONNX, and with a parity check as files.

They are traced while other threads compute frames. Engine files of TensorRT for RTX are built for
a named GPU on a machine that needs none.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import logging
import tempfile
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
FORMATS = ('onnx', 'pt2', 'tensorrt-rtx')
MODULES = ('tensorrt_rtx', 'tensorrt_rtx_bindings')  # NVIDIA's package, and its part on PyPI

_one_export = threading.Lock()


class TupleOutput(nn.Module):
    """
    Wrap a segmentor so that it returns a tuple: logits, UEM logits, detections, then the features.

    Absent outputs are left out, and the features where nobody wants them; which ones there are is
    known after the first forward pass.
    """

    def __init__(self, model: nn.Module, features: bool = True) -> None:
        super().__init__()
        self.model = model
        self.features = features
        self.present: list[bool] | None = None
        # exporters put a module back into the mode that its outermost part says
        self.train(model.training)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """From normalised images (B, 3, h, w) to the tuple."""
        output = self.model(images)
        heads = (output.logits, output.ood, output.detections)
        self.present = [head is not None for head in heads]
        features = tuple(output.features) if self.features else ()
        return tuple(head for head in heads if head is not None) + features

    def restore(self, tensors: Sequence[Tensor]) -> SegmentorOutput:
        """Put the tuple back into a SegmentorOutput."""
        assert self.present is not None, 'no forward pass yet'
        rest = list(tensors)
        heads = [rest.pop(0) if there else None for there in self.present]
        return SegmentorOutput(rest, *heads)


def twin(model: nn.Module) -> nn.Module:
    """Copy a model that shares its weights: an export puts others in their place while it runs."""
    weights = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in weights})


@contextlib.contextmanager
def in_this_thread() -> Iterator[None]:
    """
    Keep to this thread what an export does to `nn.Module` itself, whose methods it replaces.

    What other threads compute would be traced along, and they and the export fail.
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
    example of `images`, or of several inputs `input_0`, .... Without `batch` it is for the batch
    of the example, as are networks whose `any_batch` is False. Returns the names of its outputs.
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
        dynamic = tuple({0: torch.export.Dim('batch')} for _ in inputs) if batch else None
        program = torch.onnx.export(
            network,
            inputs,
            input_names=several if len(several) > 1 else ['images'],
            output_names=names,
            dynamic_shapes=dynamic,
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


def export(
    model: nn.Module, size: tuple[int, int], path: str | Path, kind: str, gpu: str = ''
) -> float:
    """
    Write a segmentor without its features: images in, logits and UEM outputs out.

    The model is in evaluation mode, `size` is (h, w) of the images. `kind` is 'onnx' (any batch;
    InternImage: 1), 'pt2' (a program of torch.export, batch 1) or 'tensorrt-rtx' (an engine for
    `gpu`, as 'sm_89', batch 1); ImportError without its runtime, ValueError for another format or
    GPU.

    Returns the largest absolute difference between the export and eager, on noise, relative to
    the largest absolute output; of an engine, that of the ONNX file that it is built from.
    """
    if kind not in FORMATS:
        raise ValueError(f'format: expected one of {", ".join(FORMATS)}, got {kind!r}')
    if bool(gpu) != (kind == 'tensorrt-rtx'):
        raise ValueError('the format tensorrt-rtx, and no other, is for a GPU: --for sm_89')
    capability = target(gpu) if gpu else None
    network = TupleOutput(model.eval().cpu(), features=False)
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        want = network(images)
        if kind == 'pt2':
            torch.export.save(torch.export.export(network, (images,)), str(path))
            got = list(torch.export.load(str(path)).module()(images))
        else:
            import onnxruntime

            source = Path(folder) / 'model.onnx' if gpu else Path(path)
            export_onnx(network, images, source, batch=not gpu)
            session = onnxruntime.InferenceSession(source, providers=['CPUExecutionProvider'])
            got = [torch.from_numpy(a) for a in session.run(None, {'images': images.numpy()})]
            if gpu:
                build_engine(source, Path(path), capability)
    return max(
        float(((a - b).abs().max() / b.abs().max().clamp_min(1e-6)).item())
        for a, b in zip(got, want, strict=True)
    )


def library() -> Any:
    """Import TensorRT for RTX. Raises ImportError, which says what to do."""
    reasons = []
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reasons.append(str(error))
    raise ImportError(
        f'TensorRT for RTX is needed ({reasons[-1]}): pip install "ood_perception[rtx]"'
    )


def target(gpu: str) -> Any:
    """Compute capability of a `gpu` as 'sm_89'; 'current' is this machine's. Raises ValueError."""
    known = {
        name.lower().replace('sm', 'sm_'): value
        for name, value in library().ComputeCapability.__members__.items()
        if name != 'NONE'
    }
    if gpu not in known:
        names = ', '.join(sorted(known, key=lambda name: (len(name), name)))
        raise ValueError(
            f'TensorRT for RTX builds for {names}, got {gpu!r}: for other GPUs export onnx, '
            'and build the engine there with trtexec'
        )
    return known[gpu]


def build_engine(source: Path, path: Path, capability: Any) -> int:
    """
    Build an engine from an ONNX file of fixed shapes, whose types it has; returns its layers.

    ValueError: TensorRT for RTX cannot read the file, or builds nothing of it. The engine is
    written whole, or not at all.
    """
    rtx = library()
    logger = rtx.Logger(rtx.Logger.ERROR)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        faults = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise ValueError(f'TensorRT for RTX cannot read {source}: {"; ".join(faults)}')
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(capability, 0)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError('TensorRT for RTX builds no engine of it; its messages are above')
    partial = path.with_name(f'{path.name}.partial')
    try:
        partial.write_bytes(engine)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return int(network.num_layers)
