# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What loading a checkpoint found, and the errors it raises."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field


class CheckpointError(ValueError):
    """
    A checkpoint cannot be used; the message is one line that says why and what to do.

    Attributes:
        report: what was found, None where the file could not even be read.
    """

    def __init__(self, message: str, report: LoadReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class WeightsMissing(FileNotFoundError, ValueError):
    """A weight file is not on this machine; the message says which command gets it."""


@dataclass
class LoadReport:
    """Every key of a checkpoint, by what became of it."""

    origin: str  # whose format it was: mmseg, dinov2, uem, detectron2, sam or ours
    used: list[str] = field(default_factory=list)  # keys of the checkpoint that were loaded
    # keys of the checkpoint that the model does not need -> why
    ignored: dict[str, str] = field(default_factory=dict)
    # parameters of the model that the checkpoint lacks
    missing: list[str] = field(default_factory=list)
    # parameter -> (shape in the checkpoint, shape in the model)
    wrong_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    # keys of the checkpoint that nothing accounts for
    unexpected: list[str] = field(default_factory=list)
    # parameters that the checkpoint lacks and that inference does not need
    optional: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, wrong-shaped or unexpected."""
        return not (self.missing or self.wrong_shape or self.unexpected)

    def __str__(self) -> str:
        parts = [f'origin {self.origin}', f'{len(self.used)} keys used']
        if self.ignored:
            reasons = ', '.join(sorted(set(self.ignored.values())))
            parts.append(f'{len(self.ignored)} ignored ({reasons})')
        if self.optional:
            parts.append(f'{len(self.optional)} optional ones absent')
        if self.missing:
            parts.append(f'{len(self.missing)} missing ({_some(self.missing)})')
        if self.wrong_shape:
            shapes = [f'{k} is {got}, expected {to}' for k, (got, to) in self.wrong_shape.items()]
            parts.append(f'{len(shapes)} of the wrong shape ({_some(shapes)})')
        if self.unexpected:
            parts.append(f'{len(self.unexpected)} unexpected ({_some(self.unexpected)})')
        return '; '.join(parts)


def _some(names: Collection[str], limit: int = 3) -> str:
    shown = list(names)[:limit]
    return ', '.join(shown) + (', ...' if len(names) > limit else '')
