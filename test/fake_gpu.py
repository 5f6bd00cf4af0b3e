# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A GPU that is not there: torch's fake tensors, which know shapes and devices but no numbers.

What asks such a tensor for a number raises, and so does a mix of devices. What lies on the host is
real. Copies between the two are listed; streams and events of the driver do nothing.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PACKAGE = str(Path(__file__).parents[1] / 'ood_perception')


class Driver:
    """A stream, an event or a context of the driver."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: 0.0

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: Any) -> None: ...


class FakeGPU(TorchDispatchMode):
    """
    Runs on the host what lies there, and pretends the rest.

    Attributes:
        uploads: the lines that copied from the host to the device, oldest first.
        downloads: those that copied back.
        waits: those that waited for the device.

    """

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[str] = []
        self.downloads: list[str] = []
        self.waits: list[str] = []

    def clear(self) -> None:
        for lines in (self.uploads, self.downloads, self.waits):
            lines.clear()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        kwargs = dict(kwargs or {})
        if function.namespace == 'prim':  # a question for the device's name
            return function(*args, **kwargs)
        if _composite(function):  # inference mode leaves these whole
            with self:
                return function.decompose(*args, **kwargs)
        name, device = function._schema.name, kwargs.get('device')
        to = torch.device(device).type if device is not None else ''
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        fake = [isinstance(tensor, FakeTensor) for tensor in tensors]
        if name == 'aten::copy_' and fake == [False, True]:
            self.downloads.append(_line(name))
            if not (kwargs.get('non_blocking') or args[2:] == (True,)):
                self.waits.append(_line(name))
            return self._really(torch.ops.aten.zero_.default, args[0])
        if name == 'aten::_to_copy' and fake == [True] and to == 'cpu':
            self.downloads.append(_line(name))
            self.waits.append(_line(name))
            dtype = kwargs.get('dtype') or args[0].dtype
            return self._really(torch.zeros, tuple(args[0].shape), dtype=dtype)
        if not any(fake) and to != 'cuda':
            kwargs.pop('pin_memory', None)
            return self._really(function, *args, **kwargs)
        # A number of the host is an argument of a kernel; what has a shape travels.
        if any(not f and (t.dim() or to == 'cuda') for f, t in zip(fake, tensors, strict=True)):
            self.uploads.append(_line(name))
        return function(*args, **kwargs)

    def _really(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            return function(*args, **kwargs)


@functools.cache
def _composite(function: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    kernels = torch._C._dispatch_has_kernel_for_dispatch_key(function.name(), key)
    return key in function.py_kernels or kernels


def _line(operator: str) -> str:
    """Name an operator and the newest line of the package that called it."""
    for frame in reversed(traceback.extract_stack()):
        if frame.filename.startswith(PACKAGE):
            return f'{operator}: {frame.filename}:{frame.lineno} {frame.line}'
    return operator


def _forget() -> None:
    """Empty the caches of the package: what lies on a pretended device is of no use elsewhere."""
    for thing in gc.get_objects():
        cached = type(thing) is functools._lru_cache_wrapper
        if cached and thing.__module__.startswith('ood_perception.'):
            thing.cache_clear()


def _apply(module: nn.Module, function: Any, recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` for parameters that cannot be changed in place."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                moved = nn.Parameter(function(value.detach()), requires_grad=False)
                part._parameters[name] = moved
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else function(value)
    return module


@contextlib.contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGPU]:
    """Pretend a GPU in the body: what is moved to 'cuda' there loses its numbers."""
    gpu = FakeGPU()

    class Stream(Driver):
        def synchronize(self) -> None:
            gpu.waits.append(_line('synchronize'))

    for name in ('Stream', 'Event', 'device', 'stream'):
        monkeypatch.setattr(torch.cuda, name, Driver)
    monkeypatch.setattr(torch.cuda, 'current_stream', Stream)
    monkeypatch.setattr(torch.Tensor, 'record_stream', lambda *_: None)
    # autocast looks for a driver, and would compute in float32
    monkeypatch.setattr(torch.cuda.amp.common, 'amp_definitely_not_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: True)
    monkeypatch.setattr(nn.Module, '_apply', _apply)
    _forget()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), gpu:
            yield gpu
    finally:
        _forget()
