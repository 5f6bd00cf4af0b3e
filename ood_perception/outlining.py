# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""From the score of a batch to its instances: boxes, an outline in each, no overlaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ood_perception.engines.base import EngineEvent, first_line, release_memory
from ood_perception.engines.small import SmallEngine
from ood_perception.frames.timing import StageTimer
from ood_perception.masks.base import MaskModel, PromptModel
from ood_perception.masks.boxes import Boxes, waits
from ood_perception.masks.fusion import Instances, fuse

T = TypeVar('T')

Note = Callable[[str], None]


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

        Returns:
            Instances of each frame, or the error in their place.

        """
        with timer.stage('prompts'):
            seen = [images, score, probability]
            seen += [detections] if detections is not None else []
            boxes = attempt('prompts', self._note, self.prompts, *seen)
            if isinstance(boxes, Exception):
                return [boxes] * len(images)
            if not waits(boxes.valid):
                count = int(boxes.valid.sum(1).amax())  # empty slots are the last ones
                boxes = Boxes(*(part[:, :count] for part in boxes))
        found: list[Instances | Exception] = []
        with timer.stage('masks'):
            logits = self._outline(images, probability, boxes.boxes)
            for i, mask in enumerate(logits):
                if isinstance(mask, Exception):
                    found.append(mask)
                    continue
                classes = None if semantic is None else semantic[i]
                prompt = (mask, boxes.confidences[i], boxes.valid[i])
                parts = (*prompt, score[i], classes, self._ground)
                found.append(attempt('masks', self._note, fuse, *parts))
        return found

    def _outline(
        self, images: Tensor, probability: Tensor, boxes: Tensor
    ) -> Sequence[Tensor | Exception]:
        """Outline the boxes (B, K, 4) of all frames together; if that fails, of each by itself."""
        if not boxes.shape[1]:
            return probability.new_empty(len(images), 0, *probability.shape[1:]).unbind()
        logits = attempt('masks', self._note, self.mask_model, images, probability, boxes)
        if not isinstance(logits, Exception):
            return logits.unbind()
        if len(images) == 1:
            return [logits]
        parts = zip(images.split(1), probability.split(1), boxes.split(1), strict=True)
        alone = [attempt('masks', self._note, self.mask_model, *part) for part in parts]
        return [one if isinstance(one, Exception) else one[0] for one in alone]

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


def attempt(what: str, note: Note, stage: Callable[..., T], *arguments: Any) -> T | Exception:
    """Run a stage that changes nothing; once more when it fails; then return its error."""
    try:
        return stage(*arguments)
    except Exception as error:
        note(f'{what} failed ({first_line(error)}); trying again')
        release_memory()
    try:
        return stage(*arguments)
    except Exception as error:
        return error
