# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What every segmentor returns; `InputSpec` says what it wants to be fed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ood_perception.frames.transfer import InputSpec

__all__ = ['InputSpec', 'SegmentorOutput']


@dataclass(slots=True)
class SegmentorOutput:
    """One forward pass of a segmentor over (B, 3, H, W) normalised RGB images."""

    # float (B, C_i, h_i, w_i), finest first unless stated
    features: list[Tensor] = field(default_factory=list)
    logits: Tensor | None = None  # (B, K, h, w) class logits F_k at the head's resolution
    ood: Tensor | None = None  # (B, 2, h', w') UEM logits, 0 = inlier, 1 = outlier
    detections: Tensor | None = None  # (B, 5, H / 4, W / 4), see `detection_head.DetectionHead`
    # float32 (B, h'', w'') metres, NaN = not measured; None where no depth comes with the images
    depth: Tensor | None = None


def concatenate(outputs: list[SegmentorOutput]) -> SegmentorOutput:
    """Join the outputs of parts of a batch, by a copy, which one part is, too."""
    features = [torch.cat(maps) for maps in zip(*(o.features for o in outputs), strict=True)]
    return SegmentorOutput(
        features,
        _joined(o.logits for o in outputs),
        _joined(o.ood for o in outputs),
        _joined(o.detections for o in outputs),
    )


def _joined(parts: Iterable[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None
