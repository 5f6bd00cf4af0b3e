# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Boxes of the detection head, which runs inside the segmentor's engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ood_perception.checkpoints.loading import load_exactly
from ood_perception.masks.boxes import Boxes, empty_boxes
from ood_perception.masks.score_detector import DetectorPrompts
from ood_perception.models.detection_head import DetectionHead

WEIGHTS = 'package:detection_head.safetensors'


class DetectionHeadPrompts(DetectorPrompts):
    """
    Boxes of `DetectionHead`, see `base.PromptModel`; reads probability and detections.

    Args:
        weights: of the head: '' for random ones, ``package:FILE``, or a path of a safetensors
            file.
        options: of `DetectorPrompts`.

    Attributes:
        head: to be made a part of the segmentor, see `building.detecting`.

    Raises:
        OSError: there is no such weight file.
        ValueError: an option out of its range, or weights that do not fit.

    """

    def __init__(self, weights: str = WEIGHTS, **options: Any) -> None:
        super().__init__(**options)
        self.head = DetectionHead()
        if weights:
            load_exactly(self.head, weights)
        self.eval()

    @torch.no_grad()
    def forward(
        self, images: Tensor, score: Tensor, probability: Tensor, detections: Tensor | None = None
    ) -> Boxes:
        """Propose boxes; see `base.PromptModel`. ValueError without detections."""
        if detections is None:
            raise ValueError('the segmentor has no detection head: build it with the pipeline')
        if self.nothing_in(probability):
            return empty_boxes(len(probability), self.slots)
        return self.read(detections.float(), probability)
