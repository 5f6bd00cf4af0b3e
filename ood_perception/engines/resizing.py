# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Run images at a shape that an engine has ready, when theirs is not."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.engines.base import Engine
from ood_perception.models.output import SegmentorOutput


def run_at_ready_shape(engine: Engine, images: Tensor) -> SegmentorOutput | None:
    """
    Run float32 (B, 3, h, w) normalised images at the nearest shape that needs no preparation.

    A batch of another length is padded or cut, which changes no answer. Images of another size
    are resized, and the outputs have the maps' sizes of that size: whatever reads them enlarges
    them to the frame anyway, so these answers are right but for the resampling. None comes where
    the engine has nothing ready.
    """
    shapes = engine.shapes()
    if not shapes:
        return None
    size = min((s[2:] for s in shapes), key=lambda s: _distance(s, images.shape[2:]))
    lengths = sorted(s[0] for s in shapes if s[2:] == size)
    if images.shape[2:] != size:
        images = F.interpolate(images, size, mode='bilinear', align_corners=False, antialias=True)
    length = next((n for n in lengths if n >= len(images)), lengths[-1])
    parts = []
    for start in range(0, len(images), length):
        part = images[start : start + length]
        missing = length - len(part)
        if missing:
            part = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)])
        # the next call overwrites what this one returns
        parts.append(copied(engine(part), length - missing))
    return parts[0] if len(parts) == 1 else concatenate(parts)


def concatenate(outputs: list[SegmentorOutput]) -> SegmentorOutput:
    """Join the outputs of parts of a batch."""
    features = [torch.cat(maps) for maps in zip(*(o.features for o in outputs), strict=True)]
    logits = [o.logits for o in outputs if o.logits is not None]
    ood = [o.ood for o in outputs if o.ood is not None]
    return SegmentorOutput(
        features, torch.cat(logits) if logits else None, torch.cat(ood) if ood else None
    )


def copied(output: SegmentorOutput, count: int | None = None) -> SegmentorOutput:
    """Copy an output, or its first `count` rows, out of the memory of the engine."""
    return SegmentorOutput(
        [maps[:count].clone() for maps in output.features],
        None if output.logits is None else output.logits[:count].clone(),
        None if output.ood is None else output.ood[:count].clone(),
    )


def _distance(size: tuple[int, ...], wanted: tuple[int, ...]) -> float:
    """How much two sizes differ in area and in proportion."""
    down, across = (math.log(a / b) for a, b in zip(size, wanted, strict=True))
    return abs(down + across) + abs(down - across)
