# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What an engine is, what it reports, and how the answers of two engines are compared."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ood_perception.models.output import SegmentorOutput

Shape = tuple[int, int, int, int]
"""(B, 3, h, w) of a batch of images."""


class Engine(Protocol):
    """
    A way to run a segmentor.

    The images belong to the caller and are not changed. The tensors of the output belong to the
    engine and are valid until its next call: a caller that keeps them longer copies them. An
    engine is built and prepared in any thread; only one thread at a time calls it.
    """

    name: str
    """Its key in the table of engines, which whoever builds it sets."""

    rounded: bool
    """Whether it computes in fewer bits than the reference, so its answers differ a little."""

    channels_last: bool
    """Whether it wants the pixels channels-last; others are laid out anew at each call."""

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """
        Run the network.

        Args:
            images: float32 (B, 3, h, w), normalised RGB, on the engine's device.

        Raises:
            torch.OutOfMemoryError: the device has no room for this batch.
            Exception: whatever the runtime raises.
        """

    def prepare(self, shape: Shape) -> None:
        """Do now what the first call at this shape would have to do: export, compile."""

    def shapes(self) -> list[Shape] | None:
        """Shapes that run without preparation, the newest last; None: every shape does."""


@dataclass(slots=True)
class EngineEvent:
    """
    Something about the engine that an operator should know.

    Attributes:
        engine: name of the engine that it is about.
        reason: what happened, one line.
        remedy: what to do about it, '' when the pipeline has dealt with it.
        level: 'warn' for a fault, 'info' for advice.
        since: seconds since the epoch when it began.
        until: seconds since the epoch when it was over; None while it lasts.
    """

    engine: str
    reason: str
    remedy: str = ''
    level: str = 'warn'
    since: float = field(default_factory=time.time)
    until: float | None = None

    def __str__(self) -> str:
        """One line for a log."""
        return f'{self.reason}; {self.remedy}' if self.remedy else self.reason


def is_ready(engine: Engine, shape: Shape) -> bool:
    """Whether an engine runs this shape without preparation."""
    shapes = engine.shapes()
    return shapes is None or shape in shapes


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory, on a device or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ('out of memory', "can't allocate memory", 'bad_alloc')
    )


def release_memory() -> None:
    """Give back what torch keeps of the GPU's memory for later, where there is a GPU in use."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def first_line(error: BaseException) -> str:
    """First line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def largest_difference(output: SegmentorOutput, reference: SegmentorOutput) -> float:
    """
    Largest absolute difference of outputs, over the range of the reference.

    Returns:
        0 for equal outputs, infinity where one lacks an output, differs in shape or is not finite.
    """
    return max(
        _relative((a - b).abs().max(), b.max() - b.min()) for a, b in _pairs(output, reference)
    )


def mean_difference(output: SegmentorOutput, reference: SegmentorOutput) -> float:
    """Root mean square difference of the same outputs, over the reference's deviation."""
    return max(
        _relative((a - b).square().mean().sqrt(), b.std()) for a, b in _pairs(output, reference)
    )


def _pairs(output: SegmentorOutput, reference: SegmentorOutput) -> list[tuple[Tensor, Tensor]]:
    outputs = (output.logits, output.ood), (reference.logits, reference.ood)
    pairs = []
    for got, want in zip(*outputs, strict=True):
        if got is None and want is None:
            continue
        if got is None or want is None or got.shape != want.shape:
            return [(torch.tensor([torch.inf, 0.0]), torch.zeros(2))]
        pairs.append((got.float(), want.float()))
    pairs += [
        (a.float(), b.float()) for a, b in zip(output.features, reference.features, strict=False)
    ]
    return pairs or [(torch.zeros(2), torch.zeros(2))]


def _relative(gap: Tensor, scale: Tensor) -> float:
    value = float(gap / scale.clamp_min(1e-6))
    return value if value == value else float('inf')
