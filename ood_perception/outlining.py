# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""From the score of a batch to its instances: boxes, an outline in each, no overlaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ood_perception.engines.base import EngineEvent
from ood_perception.engines.faults import Note, attempt
from ood_perception.engines.small import SmallEngine
from ood_perception.frames.timing import StageTimer
from ood_perception.masks.base import MaskModel, PromptModel
from ood_perception.masks.boxes import Boxes, waits
from ood_perception.masks.fusion import Instances, fuse


class Outliner:
    """
    Find and outline the unknown objects of a batch.

    What fails is tried again, since memory may come back, and then fails for its frame only.

    Args:
        prompts: proposes boxes.
        mask_model: outlines what is in them.
        ground: class ids that an object can stand on.
        note: told one line when something failed.

    """

    def __init__(
        self, prompts: PromptModel, mask_model: MaskModel, ground: tuple[int, ...], note: Note
    ) -> None:
        self.prompts, self.mask_model = prompts, mask_model
        self._ground, self._note = ground, note

    def __call__(
        self,
        images: Tensor,
        score: Tensor,
        probability: Tensor,
        semantic: Tensor | None,
        detections: Tensor | None,
        timer: StageTimer,
        join: Callable[[Boxes], Boxes],
    ) -> list[Instances | Exception]:
        """
        Find the instances of each frame.

        Args:
            images: uint8 (B, 3, h, w) RGB.
            score: float32 (B, h, w), higher = more unknown.
            probability: float32 (B, h, w), 0..1, the calibrated score.
            semantic: uint8 (B, h, w) class ids, None without classes.
            detections: float (B, 5, h / 4, w / 4) of the segmentor's detection head, or None.
            timer: of the stages 'prompts' and 'masks'.
            join: joins the boxes with those of earlier frames.

        Returns:
            Instances of each frame, or the error in their place.

        """
        with timer.stage('prompts'):
            seen = [images, score, probability]
            seen += [detections] if detections is not None else []
            boxes = attempt('prompts', self._note, lambda: self.prompts(*seen))
            if isinstance(boxes, Exception):
                return [boxes] * len(images)
            boxes = join(boxes)
            if not waits(boxes.valid.device):
                count = int(boxes.valid.sum(1).amax())  # empty slots are the last ones
                boxes = Boxes(*(part[:, :count] for part in boxes))
        found: list[Instances | Exception] = []
        with timer.stage('masks'):
            logits = self._outline(images, probability, boxes.boxes)
            for i, mask in enumerate(logits):
                classes = None if semantic is None else semantic[i]
                found.append(self._instances(mask, boxes, i, score[i], classes))
        return found

    def _instances(
        self,
        masks: Tensor | Exception,
        boxes: Boxes,
        i: int,
        score: Tensor,
        classes: Tensor | None,
    ) -> Instances | Exception:
        """Instances of frame `i`, or why it has none."""
        if isinstance(masks, Exception):
            return masks
        parts = masks, boxes.confidences[i], boxes.valid[i], score, classes, self._ground
        return attempt('masks', self._note, lambda: fuse(*parts))

    def _outline(
        self, images: Tensor, probability: Tensor, boxes: Tensor
    ) -> Sequence[Tensor | Exception]:
        """Outline the boxes (B, K, 4) of all frames together; if that fails, of each by itself."""
        if not boxes.shape[1]:
            return probability.new_empty(len(images), 0, *probability.shape[1:]).unbind()
        parts = images, probability, boxes
        logits = attempt('masks', self._note, lambda: self.mask_model(*parts))
        if not isinstance(logits, Exception):
            return logits.unbind()
        if len(images) == 1:
            return [logits]
        frames = zip(*(part.split(1) for part in parts), strict=True)
        return [one for frame in frames for one in self._outline(*frame)]

    def warm_up(self, height: int, width: int, device: torch.device) -> None:
        """Run the mask model, which a frame without objects does not, on a box in the middle."""
        zeros = torch.zeros(1, height, width, device=device)
        image = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device)
        box = [width / 4, height / 4, width * 3 / 4, height * 3 / 4]
        self.mask_model(image, zeros, torch.tensor([[box]], device=device))

    def faults(self) -> list[EngineEvent]:
        """What keeps the small networks from the engine that they should run in."""
        parts = [
            part
            for stage in (self.prompts, self.mask_model)
            if isinstance(stage, torch.nn.Module)
            for part in stage.modules()
        ]
        return [part.fault for part in parts if isinstance(part, SmallEngine) and part.fault]
