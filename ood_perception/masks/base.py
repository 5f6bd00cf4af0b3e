# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What the masks stage is made of: protocols of the prompt model and of the mask model."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ood_perception.masks.boxes import Boxes


class PromptModel(Protocol):
    """Proposes boxes of what may be unknown objects; an nn.Module, entry of `PROMPTS`."""

    def __call__(self, images: Tensor, score: Tensor, probability: Tensor) -> Boxes:
        """
        Propose boxes in a batch of B frames.

        Args:
            images: uint8 (B, 3, H, W) RGB, on the model's device.
            score: float32 (B, H, W), the raw score, higher = more unknown.
            probability: float32 (B, H, W), 0..1, the calibrated score; NaN counts as 0.

        Returns:
            Boxes in a fixed number of slots. A model reads what it was made for; that of a
            segmentor with a detection head gets what it detected as a fourth argument.

        """

    def to(self, device: torch.device) -> PromptModel:
        """Move the model to a device."""


class MaskModel(Protocol):
    """Outlines the object in each box; an nn.Module, entry of `MASK_MODELS`."""

    def __call__(self, images: Tensor, probability: Tensor, boxes: Tensor) -> Tensor:
        """
        Outline the objects of B frames together.

        Args:
            images: uint8 (B, 3, H, W) RGB, on the model's device.
            probability: float32 (B, H, W), 0..1, the calibrated score; NaN counts as 0.
            boxes: float (B, K, 4) XYXY pixels of the frame; K may be 0. Outside, empty or NaN
                boxes, such as the zeros of empty slots, give an empty mask.

        Returns:
            float32 (B, K, H, W) logits, > 0 = object.

        """

    def to(self, device: torch.device) -> MaskModel:
        """Move the model to a device."""
