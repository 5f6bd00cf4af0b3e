# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a score is: the protocol that the pipeline calls, and a base class with its defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn

from ood_perception.frames.resize import resize
from ood_perception.models.output import SegmentorOutput

Size = tuple[int, int]  # (H, W) in pixels


class Score(Protocol):
    """What the pipeline asks of a score."""

    needs_features: bool  # whether it reads `SegmentorOutput.features`, which cost time
    learns: bool  # whether it learns what is normal on site, see `LearningScore`

    def __call__(self, output: SegmentorOutput, size: Size, streams: Sequence[str] = ()) -> Tensor:
        """
        Score a batch of B frames: float32 (B, H, W), higher = more unknown.

        `streams` names each frame's camera, for scores that live through time. ValueError: the
        segmentor's output lacks what the score reads.
        """

    def to(self, device: torch.device) -> Score:
        """Move the score to a device."""

    def identify(self, model: str) -> None:
        """Tell which model feeds it, see `building.model_identity`; ValueError: not its own."""

    def reset(self, stream: str | None = None) -> None:
        """Forget one camera's past, or that of all."""


class LearningScore(Score, Protocol):
    """A score with a memory of what is normal, learnt on site and kept in a file."""

    learning: bool  # whether it learns from every frame that it scores
    seen: Tensor | None  # float32 (B, H, W), the other score of the frames learnt last, if any
    accepting: Tensor | None  # bool (H, W), what is normal in the next frame though it looks odd
    judges_untaught: bool  # whether it judges by something else while nothing was learnt
    frames: int  # that were learnt
    size: int  # tokens in the memory, 0 = nothing was learnt
    problem: str  # why the memory is not in use, with the remedy; '' where it is
    doubt: str  # why what it says should be looked at, with the remedy; '' = nothing is odd
    poor: str  # why what was learnt is too little to judge by; '' = it is enough

    def forget(self) -> None:
        """Forget all."""

    def start(self) -> None:
        """Forget everything and learn from every frame that is scored until :meth:`stop`."""

    def stop(self) -> None:
        """Stop learning."""

    def save(self, path: str) -> None:
        """Write the memory to a file. Raises ValueError where nothing was learnt."""

    def load(self, path: str) -> None:
        """Read a memory. Raises ValueError where it does not fit; the present one stays."""


def learns(score: Score) -> TypeGuard[LearningScore]:
    """Whether a score learns what is normal on site."""
    return score.learns


class ScoreModule(nn.Module):
    """
    Base class of scores: reads no features, learns nothing, remembers nothing.

    A subclass writes `forward` with the arguments of `Score.__call__`, and overrides what is
    different about it.
    """

    needs_features = False
    learns = False

    def identify(self, model: str) -> None:
        """Ignore the model's name: nothing was learnt on any."""

    def reset(self, stream: str | None = None) -> None:
        """Do nothing: there is no past."""


def full(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is where it has more precision."""
    return x if x.dtype == torch.float64 else x.float()


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize float (B, C, h, w) to (H, W), bilinear with align_corners=False, float32 at least."""
    return resize(full(maps), size)


def need(tensor: Tensor | None, score: str, what: str) -> Tensor:
    """Return the tensor, or raise ValueError saying what the segmentor lacks."""
    if tensor is None:
        raise ValueError(f'score {score}: the segmentor gives no {what}; choose another score')
    return tensor
