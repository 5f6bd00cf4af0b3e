# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Resizing of maps: one convention for networks, scores and masks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """
    Resize float (B, C, h, w) bilinearly, with pixel centres at half coordinates.

    The dtype stays; maps that have the size already are returned as they are.
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode='bilinear', align_corners=False)


def full(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is where it has more precision."""
    return x if x.dtype == torch.float64 else x.float()


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps (B, C, h, w) as :func:`resize`, in float32 at least."""
    return resize(full(maps), size)


def resize_like(maps: Tensor, like: Tensor) -> Tensor:
    """
    Resize maps (B, C, h, w) as :func:`resize` to the height and width of `like`.

    Inside networks: nothing is asked of the shapes, so an exporter traces the resize itself.
    """
    return F.interpolate(maps, like.shape[2:], mode='bilinear', align_corners=False)


def resize_map(image: Tensor, size: Sequence[int], mode: str = 'bilinear') -> Tensor:
    """
    Resize one (h, w) map of any dtype to (H, W), which it keeps.

    Integers go through float32, which is exact up to 2^24. 'bilinear' (align_corners=False) is for
    measures, 'nearest' for labels.
    """
    if tuple(image.shape) == tuple(size):
        return image
    if image.device.type == 'cpu' and image.dtype == torch.float32 and mode == 'bilinear':
        # torch's own takes several times as long for one map
        return torch.from_numpy(cv2.resize(image.numpy(), (int(size[1]), int(size[0]))))
    align = None if mode == 'nearest' else False
    values = image[None, None].float()
    return F.interpolate(values, tuple(size), mode=mode, align_corners=align)[0, 0].to(image.dtype)
