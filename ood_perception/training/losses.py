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

from ood_perception.scores.base import full, upsample

IGNORE = 255
"""Label of pixels that no loss sees."""

UNKNOWN = 254
"""Label of pixels of objects that belong to no class."""

NO_COMPONENT = -1
"""Contrast target of pixels without a label (255 may be the number of a component)."""


def ood_target(label: Tensor) -> Tensor:
    """
    Turn segmentation labels into the UEM's target.

    Args:
        label: int (..., H, W), class ids, 254 = unknown, 255 = void.

    Returns:
        int64 (..., H, W): 1 unknown, 0 known, 255 void (ignored, not unknown).

    """
    target = (label == UNKNOWN).long()
    return target.masked_fill(label == IGNORE, IGNORE)


def known_target(label: Tensor) -> Tensor:
    """Labels int64 for the class loss: unknown pixels are ignored as void is."""
    return label.long().masked_fill(label == UNKNOWN, IGNORE)


def object_weights(target: Tensor, area: float, most: float = 4.0) -> Tensor:
    """
    Weights by which small unknown objects count like larger ones: sqrt(area / own area).

    A pixel's share in a mean over pixels lets a network give up small things: an object of 12 x 12
    pixels is a thousandth of a frame. An object is an 8-connected component of unknown pixels.

    Args:
        target: int (B, H, W), 1 = unknown, see `ood_target`.
        area: cells; objects of this area and larger ones have weight 1.
        most: largest weight.

    Returns:
        float32 (B, H, W), 1..most, 1 where nothing is unknown.

    """
    weights = np.ones(tuple(target.shape), np.float32)
    for row, mask in zip(weights, (target == 1).cpu().numpy(), strict=True):
        count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        if count > 1:
            own = np.sqrt(area / stats[:, cv2.CC_STAT_AREA]).clip(1, most)
            own[0] = 1
            row[:] = own[parts]
    return torch.from_numpy(weights).to(target.device)


def without_specks(target: Tensor, least: float) -> Tensor:
    """
    Leave out unknown objects of so few pixels that nothing tells them from their surroundings.

    A network that is asked for them learns where they are likely: along the horizon, all of it.

    Args:
        target: int (B, H, W), 1 = unknown, see `ood_target`.
        least: cells; 8-connected components of fewer are void.

    Returns:
        A copy of the target.

    """
    found = target.clone()
    for row, mask in zip(found, (target == 1).cpu().numpy(), strict=True):
        _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        speck = stats[:, cv2.CC_STAT_AREA] < least
        speck[0] = False
        if speck.any():
            row[torch.from_numpy(speck[parts]).to(row.device)] = IGNORE
    return found


def llr_loss(
    llr: Tensor,
    target: Tensor,
    *,
    ood: Tensor | None = None,
    alpha: float = 0.0,
    contrast: tuple[Tensor, Tensor] | None = None,
    beta: float = 0.01,
    unknown_weight: float = 1.0,
    pixel_weight: Tensor | None = None,
) -> Tensor:
    """
    Likelihood-ratio loss BCE(LLR) + alpha CE(u) + beta CE(contrast), means over valid pixels.

    The contrast term is not multiplied by alpha: the official code adds it as it is.

    Args:
        llr: float (B, H, W), log-likelihood ratio at label size.
        target: int (B, H, W), 0 known, 1 unknown, 255 ignored.
        ood: float (B, 2, H, W), UEM outputs at label size, needed where alpha > 0.
        alpha: weight of the cross entropy over the UEM's two outputs (0.5 for G-G, else 0).
        contrast: (logits (N, P), targets (N,) int with -1 = ignored) of a GMM head.
        beta: weight of the contrast term.
        unknown_weight: weight of unknown pixels in the first two terms (1 in the paper); the
            means are then weighted means.
        pixel_weight: float (B, H, W), factors on the pixels of the first term (None: all 1, as
            in the paper), see `object_weights`.

    Returns:
        float32 (), 0 with a gradient where no pixel is valid.

    Raises:
        ValueError: alpha > 0 without `ood`.

    """
    if alpha and ood is None:
        raise ValueError('llr_loss: alpha > 0 needs the UEM outputs (ood)')
    valid = target != IGNORE
    llr = full(llr)
    wanted = (target == 1).to(llr.dtype)
    weight = valid * (1.0 + (unknown_weight - 1.0) * wanted)
    if pixel_weight is not None:
        weight = weight * pixel_weight
    pixel = F.binary_cross_entropy_with_logits(llr, wanted, reduction='none')
    loss = (pixel * weight).sum() / weight.sum().clamp(min=1e-6)
    if alpha and ood is not None:
        weights = torch.tensor([1.0, unknown_weight], device=llr.device, dtype=llr.dtype)
        loss = loss + alpha * cross_entropy(ood, target, weights)
    if contrast is not None:
        loss = loss + beta * cross_entropy(*contrast, ignore=NO_COMPONENT)
    return loss


def segmentation_loss(
    logits: Tensor,
    label: Tensor,
    contrast: tuple[Tensor, Tensor] | None = None,
    beta: float = 0.01,
    class_weight: Tensor | None = None,
) -> Tensor:
    """
    Stage-1 loss: CE of the upsampled logits, plus beta CE(contrast) where the head is a GMM.

    Args:
        logits: float (B, K, h, w) at head resolution.
        label: int (B, H, W), 254 and 255 are ignored.
        contrast: see :func:`llr_loss`.
        beta: weight of the contrast term.
        class_weight: float (K,), weight of each class (None: all 1, as in the papers).

    """
    up = upsample(full(logits), (int(label.shape[-2]), int(label.shape[-1])))
    loss = cross_entropy(up, known_target(label), class_weight)
    if contrast is not None:
        loss = loss + beta * cross_entropy(*contrast, ignore=NO_COMPONENT)
    return loss


def cross_entropy(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, ignore: int = IGNORE
) -> Tensor:
    """Mean cross entropy over targets but `ignore`; 0 (with a gradient) where there is none."""
    target = target.long()
    summed = F.cross_entropy(full(logits), target, weight, ignore_index=ignore, reduction='sum')
    valid = target != ignore
    count = valid.sum() if weight is None else weight[target[valid]].sum()
    return summed / torch.clamp(count, min=1e-6)
