# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Folding: layers multiplied with each other once, after the weights are loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn


class Foldable(nn.Module):
    """A layer with kernels that are constant while the weights are, and can be computed once."""

    def fold(self) -> None:
        """Compute them, in place; afterwards the layer's weights have other keys."""
        raise NotImplementedError


def fold(model: nn.Module) -> nn.Module:
    """Fold every `Foldable` layer of a model for inference, in place; returns the model."""
    for layer in [layer for layer in model.modules() if isinstance(layer, Foldable)]:
        layer.fold()
    return model


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
