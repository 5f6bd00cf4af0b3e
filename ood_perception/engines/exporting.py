# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""torch.export of a network with which another thread computes frames meanwhile."""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.fx import _symbolic_trace

_one_export = threading.Lock()


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
