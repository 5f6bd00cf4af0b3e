# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Losses of the likelihood-ratio recipe (UEM), as the official code has them.

Paper: "Likelihood Ratio-Based Approach to Segmenting Unknown Objects", equations 8 to 11.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.labels import Label
from ood_perception.scores.base import full

UNKNOWN, IGNORE = Label.UNKNOWN, Label.VOID


def object_weights(target: Tensor, area: float, limit: float = 4.0) -> Tensor:
    """
    Weights by which small unknown objects count like larger ones: sqrt(area / own area).

    A pixel's share in a mean over pixels lets a network give up small things: an object of 12 x 12
    pixels is a thousandth of a frame. An object is an 8-connected component of unknown pixels.

    Args:
        target: int (B, H, W), 1 = unknown, see `labels.truth_of`.
        area: cells; objects of this area and larger ones have weight 1.

    Returns:
        float32 (B, H, W), 1..limit, 1 where nothing is unknown.
    """
    weights = np.ones(tuple(target.shape), np.float32)
    for row, mask in zip(weights, (target == 1).cpu().numpy(), strict=True):
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        if count > 1:
            own = np.sqrt(area / stats[:, cv2.CC_STAT_AREA]).clip(1, limit)
            own[0] = 1
            row[:] = own[parts]
    return torch.from_numpy(weights).to(target.device)


def llr_loss(
    llr: Tensor,
    target: Tensor,
    *,
    unknown_weight: float = 1.0,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """
    Likelihood-ratio loss BCE(LLR), a mean over valid pixels.

    Args:
        llr: float (B, H, W), log-likelihood ratio at label size.
        target: int (B, H, W), 0 known, 1 unknown, 255 ignored.
        unknown_weight: weight of unknown pixels (1 in the paper).
        pixel_weight: float (B, H, W), factors on the pixels, see `object_weights`; None = 1
            (the paper).

    Returns:
        float32 (), 0 with a gradient where no pixel is valid.
    """
    valid = target != IGNORE
    llr = full(llr)
    wanted = (target == 1).to(llr.dtype)
    weight = valid * (1.0 + (unknown_weight - 1.0) * wanted)
    if pixel_weight is not None:
        weight = weight * pixel_weight
    pixel = F.binary_cross_entropy_with_logits(llr, wanted, reduction='none')
    return (pixel * weight).sum() / weight.sum().clamp(min=1e-6)
