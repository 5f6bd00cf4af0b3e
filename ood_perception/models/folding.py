# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Folding: layers multiplied with each other once, after the weights are loaded."""

from __future__ import annotations

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
