# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A segmentor as a function from one tensor to a tuple of tensors, as compilers want it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ood_perception.models.output import SegmentorOutput


class TupleOutput(nn.Module):
    """
    Wrap a segmentor so that it returns a tuple: logits, UEM logits, then the features.

    Absent outputs are left out; which ones there are is known after the first forward pass.

    Args:
        model: segmentor.
        features: False leaves out the features, which saves their copies.
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
