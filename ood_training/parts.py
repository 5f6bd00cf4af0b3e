# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The parts of a segmentor that training treats differently: frozen features, class logits, UEM.

Every model of the registry is seen as: images -> frozen feature maps -> class logits (stage 1
trains this) and -> UEM outputs (stage 2 trains that).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ood_perception.frames.transfer import normalise as normalise
from ood_perception.models.output import InputSpec
from ood_training.checkpointing import TrainingError
from ood_training.depthwise import train_in_grids

Maps = Sequence[Tensor]


@dataclass
class Parts:
    """How to run the parts of one model."""

    model: nn.Module  # the whole model, whose state is saved
    spec: InputSpec  # how its images are normalised
    # normalised images -> list of maps of the frozen backbone
    features: Callable[[Tensor], list[Tensor]]
    # maps -> class logits (B, K, h, w), or None for a bare backbone
    logits: Callable[[Maps], Tensor] | None
    ood: Callable[[Maps], Tensor] | None  # maps -> UEM outputs (B, 2, h, w), or None
    backbone: nn.Module  # the frozen module, which has a checkpoint of its own
    decoder: list[nn.Module] = field(default_factory=list)  # modules that stage 1 trains
    uem: list[nn.Module] = field(default_factory=list)  # modules that stage 2 trains

    def prefixes(self, modules: list[nn.Module]) -> tuple[str, ...]:
        """Prefixes of the state-dict entries of some modules of the model."""
        names = {id(module): name for name, module in self.model.named_modules()}
        return tuple(f'{names[id(module)]}.' for module in modules)


def split(model: Any) -> Parts:
    """
    Find the parts of a model of the registry.

    Dilated layers of `compact` train over grids of pixels from then on, see `depthwise`.

    Raises:
        TrainingError: a model that training does not know.
    """
    kind = type(model).__name__
    if kind not in SPLITS:
        raise TrainingError(f'cannot train a {kind}; known are {", ".join(SPLITS)}')
    return SPLITS[kind](model)


def _uem(model: Any) -> Parts:
    backbone = model.segmentor.backbone
    head = model.segmentor.segmentation_head

    def features(images: Tensor) -> list[Tensor]:
        return backbone.dinov2.patch_maps(images, backbone.dinov2.out_indices)

    def ood(maps: Maps) -> Tensor:
        projected = model.ood_projector(maps[-1].permute(0, 2, 3, 1))
        return model.ood_head(projected.permute(0, 3, 1, 2))

    return Parts(
        model,
        model.spec,
        features,
        lambda maps: head(backbone.learnable_layers(maps, maps[-1])),
        ood,
        backbone.dinov2,
        [backbone.learnable_layers, head],
        [model.ood_projector, model.ood_head],
    )


def _compact(model: Any) -> Parts:
    net = model.backbone
    train_in_grids(model)
    return Parts(model, model.spec, net, model.fpn, model.uem, net, [model.fpn], [model.uem])


SPLITS: dict[str, Callable[[Any], Parts]] = {'UEM': _uem, 'Compact': _compact}
"""Class of a model -> function that finds its parts."""
