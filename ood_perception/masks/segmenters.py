# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Promptable segmenters: from boxes to masks, behind one interface.

Adding one is one class or function and one entry of `SEGMENTERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from ood_perception.masks.compact_segmenter import CompactSegmenter
from ood_perception.masks.training_free import GrabCutSegmenter, GuidedSegmenter


class Segmenter(Protocol):
    """What every entry of `SEGMENTERS` builds (an nn.Module)."""

    def set_frame(self, image: Tensor, score: Tensor, probability: Tensor) -> None:
        """
        Take a frame; what is costly (an embedding) waits for the first call of `masks`.

        Args:
            image: uint8 (H, W, 3) RGB, on the segmenter's device.
            score: float32 (H, W).
            probability: float32 (H, W), 0..1.

        """

    def masks(self, boxes: Tensor) -> Tensor:
        """
        Outline the object in each box.

        Args:
            boxes: float (N, 4) XYXY pixels of the frame; N may be 0. Outside, empty or NaN boxes
                give an empty mask.

        Returns:
            float32 (N, H, W) logits, > 0 = object.

        """


def _sam(kind: str) -> Callable[..., nn.Module]:
    def build(**options: Any) -> nn.Module:
        from ood_perception.masks.sam import create_sam

        return create_sam(kind, **options)

    return build


SEGMENTERS: dict[str, Callable[..., nn.Module]] = {
    'compact': CompactSegmenter,
    'guided': GuidedSegmenter,
    'grabcut': GrabCutSegmenter,
    'sam_vit_b': _sam('vit_b'),
    'sam_vit_l': _sam('vit_l'),
    'sam_vit_h': _sam('vit_h'),
    'mobile_sam': _sam('mobile'),
    'sam2': _sam('sam2'),
}
"""Segmenters by name, see `Segmenter`. The SAM family needs weights and a package of its own."""


def create_segmenter(name: str, **options: Any) -> nn.Module:
    """
    Build a segmenter.

    Args:
        name: entry of `SEGMENTERS`.
        **options: keyword arguments of the entry.

    Raises:
        ValueError: no such entry, or an option out of its range.
        TypeError: an option that the entry does not have.
        ImportError: the segmenter's package is not installed; the message names it.

    """
    if name not in SEGMENTERS:
        raise ValueError(f'no segmenter named {name!r}; there are: {", ".join(SEGMENTERS)}')
    return SEGMENTERS[name](**options)
