# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What an engine is and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ood_perception.models.output import SegmentorOutput

Shape = tuple[int, ...]  # (B, 3, h, w) of a batch of images; B = 0: of any length


class Engine(Protocol):
    """
    A way to run a segmentor.

    The images belong to the caller and are not changed. The tensors of the output are valid until
    the engine's next call. An engine is built and prepared in any thread; only one thread at a
    time calls it.

    It is built as ``engine(model, device, precision, features)``: the segmentor, where to run,
    float32, float16 or bfloat16 on a GPU (a CPU computes in what the engine's name says), and
    False to leave the features out of the output. Raises ValueError for a device that it does not
    run on and ImportError where its runtime is not installed.
    """

    name: str  # its key in the table of engines, which whoever builds it sets
    rounded: bool  # whether it computes in fewer bits than the reference: its answers differ a bit
    channels_last: bool  # whether it wants the pixels so; others are laid out anew at each call

    def __call__(self, images: Tensor) -> SegmentorOutput:
        """
        Run the network on float32 (B, 3, h, w), normalised RGB, on the engine's device.

        Raises torch.OutOfMemoryError, for want of room for this batch, or whatever the runtime
        raises.
        """

    def prepare(self, shape: Shape) -> None:
        """Do now what the first call at this shape would have to do: export, compile."""

    def shapes(self) -> list[Shape] | None:
        """Shapes that run without preparation; None: every shape does."""


@dataclass(slots=True)
class EngineEvent:
    """Something about the engine that an operator should know."""

    engine: str  # name of the engine that it is about
    reason: str  # what happened, one line
    remedy: str = ''  # what to do about it, '' when the pipeline has dealt with it
    until: float | None = None  # seconds since the epoch when it was over; None while it lasts

    def __str__(self) -> str:
        """One line for a log."""
        return f'{self.reason}; {self.remedy}' if self.remedy else self.reason


def is_ready(engine: Engine, shape: Shape) -> bool:
    """Whether an engine runs this shape without preparation."""
    shapes = engine.shapes()
    return shapes is None or shape in shapes or (0, *shape[1:]) in shapes


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
