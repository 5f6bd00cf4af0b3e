# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""S2M's own prompt generator: Faster R-CNN R50-FPN on the raw score map."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ood_perception.masks.boxes import Boxes, clean_boxes, empty_boxes, waits


class RCNNPrompts(nn.Module):
    """
    Boxes of the paper's detector on the raw score at its own size; see `base.PromptModel`.

    Args:
        weights: path or catalogue name of the official checkpoint, '' = random weights.
        slots: K, most boxes of each frame; the paper keeps 100.
        threshold: boxes of less confidence are dropped; the paper's 0.05.

    Raises:
        ValueError: an option out of its range, or weights that do not fit.
        OSError: the weights cannot be read.

    """

    def __init__(self, weights: str = '', slots: int = 100, threshold: float = 0.05) -> None:
        super().__init__()
        from ood_perception.models import create_model

        if slots < 1:
            raise ValueError(f'slots: expected at least 1, got {slots}')
        self.slots = slots
        self.detector = create_model('s2m_prompt_rcnn', score_threshold=threshold, max_boxes=slots)
        if weights:
            from ood_perception.checkpoints import load_checkpoint
            from ood_perception.checkpoints.store import resolve

            load_checkpoint(self.detector, resolve(weights))
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor, score: Tensor, probability: Tensor) -> Boxes:
        """
        Propose boxes.

        Args:
            score: float32 (B, H, W), raw, higher = more unknown; the official detector was
                trained on the energy of a segmentor. NaN and infinities count as the map's least
                and largest finite values.
            probability: not read.

        """
        batch, height, width = score.shape
        if waits(score):
            return self._in_slots(_finite(score))
        out = empty_boxes(batch, self.slots, score.device)
        for i, found in enumerate(self.detector(_finite(score))):
            boxes, valid = clean_boxes(found['boxes'][: self.slots], height, width)
            boxes, confidences = boxes[valid], found['scores'][: self.slots][valid]
            out.boxes[i, : len(boxes)] = boxes
            out.confidences[i, : len(boxes)] = confidences
            out.valid[i, : len(boxes)] = True
        return out

    def _in_slots(self, score: Tensor) -> Boxes:
        from ood_perception.masks.rcnn_slots import detect_in_slots
        from ood_perception.models.faster_rcnn import PromptRCNN

        assert isinstance(self.detector, PromptRCNN)
        boxes, confidences = detect_in_slots(self.detector, score)
        valid = confidences > 0
        return Boxes(torch.where(valid[..., None], boxes, 0.0), confidences, valid)


def _finite(score: Tensor) -> Tensor:
    good = torch.isfinite(score)
    least = torch.where(good, score, torch.inf).amin()
    most = torch.where(good, score, -torch.inf).amax()
    filled = torch.where(good, score, torch.where(score == torch.inf, most, least))
    return torch.nan_to_num(filled, nan=0.0, posinf=0.0, neginf=0.0)
