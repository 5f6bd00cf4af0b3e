# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
UEM: a small head on DINOv2 that tells outliers from inliers, beside a segmentor of known classes.

Paper: Nayal, Shoeb, Güney, "A Likelihood Ratio-Based Approach to Segmenting Unknown Objects",
IJCV 2025. Key names are those of the official checkpoints, except inside DINOv2 (timm's).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.frames.resize import resize
from ood_perception.models.dinov2 import PATCH, DINOv2, check_size
from ood_perception.models.heads import FPN, MLP, build_head
from ood_perception.models.output import InputSpec, SegmentorOutput

WINDOW = (518, 1036)  # height and width of the published windows in pixels
STRIDE = (140, 140)  # pixels between two published windows
GPU_BATCH = 4  # windows that go through a network together on a GPU, unless told otherwise


class Backbone(nn.Module):
    """DINOv2, which stays as it is, and the decoder that is learnt on it."""

    def __init__(self, dinov2: DINOv2, decoder: FPN) -> None:
        super().__init__()
        self.dinov2 = dinov2
        self.learnable_layers = decoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to tokens (B, D, H / 14, W / 14) and a map (B, C, 4 H / 14, 4 W / 14)."""
        features = self.dinov2.patch_maps(images, self.dinov2.out_indices)
        return features[-1], self.learnable_layers(features, features[-1])


class Segmentor(nn.Module):
    """Backbone and a head over the known classes: the first stage of training."""

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.segmentation_head = head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images to final tokens (B, D, h, w) and class logits (B, K, 4 h, 4 w)."""
        tokens, decoded = self.backbone(images)
        return tokens, self.segmentation_head(decoded)


class UEM(nn.Module):
    """
    Known classes and the likelihood ratio of being unknown, from one pass of DINOv2.

    Args:
        form: two letters, the segmentor's head and the UEM's: 'd' linear, 'g' GMMSeg.
        variant: size of DINOv2 with registers, key of `dinov2.VARIANTS`.
        num_classes: K, known classes.
        num_components: Gaussians per class of GMMSeg heads.
        channels: width of decoder and projection.
        mlp_hidden: hidden width of the decoder's MLP.
        projector_hidden: hidden widths of the projector, the MLP on the final tokens.
        out_indices: four blocks of DINOv2 for the decoder, counted from 0; the last must be the
            network's last, whose tokens the projector takes.
        mode: what :meth:`forward` does: 'single' pass, or 'sliding' windows as published.
        window: height and width of the sliding windows in pixels.
        stride: pixels between windows, down and across.
        window_batch: windows that go through the network together, None = by the device.
        **dinov2: arguments of :class:`DINOv2` that differ from the variant's.
    """

    def __init__(
        self,
        form: str,
        variant: str = 'b',
        num_classes: int = 19,
        num_components: int = 5,
        channels: int = 256,
        mlp_hidden: int = 512,
        projector_hidden: Sequence[int] = (512, 512),
        out_indices: Sequence[int] = (1, 4, 8, 11),
        mode: str = 'single',
        window: Sequence[int] = WINDOW,
        stride: Sequence[int] = STRIDE,
        window_batch: int | None = None,
        **dinov2: Any,
    ) -> None:
        super().__init__()
        if mode not in ('single', 'sliding'):
            raise ValueError(f"mode: expected 'single' or 'sliding', got {mode!r}")
        if any(side % PATCH or side < 2 * PATCH for side in window) or len(window) != 2:
            raise ValueError(f'window: expected two multiples of {PATCH} pixels, got {window}')
        if len(stride) != 2 or any(not 0 < s <= w for s, w in zip(stride, window, strict=True)):
            raise ValueError(f'stride: expected two of 1..{tuple(window)} pixels, got {stride}')
        if window_batch is not None and window_batch < 1:
            raise ValueError(f'window_batch: expected 1 or more, got {window_batch}')
        net = DINOv2(variant, out_indices=out_indices, **{'registers': 4, **dinov2})
        last = len(net.blocks) - 1
        if len(out_indices) != 4 or out_indices[-1] != last:
            raise ValueError(
                f'out_indices: expected four blocks, the last being {last}, '
                f'got {tuple(out_indices)}'
            )
        decoder = FPN(net.embed_dim, channels, mlp_hidden)
        head = build_head(form[0], channels, num_classes, num_components)
        self.segmentor = Segmentor(Backbone(net, decoder), head)
        self.ood_projector = MLP((net.embed_dim, *projector_hidden, channels))
        self.ood_head = build_head(form[1], channels, 2, num_components)
        self.mode, self.window_batch = mode, window_batch
        self.window, self.stride = tuple(window), tuple(stride)
        self.spec = InputSpec(multiple_of=PATCH if mode == 'single' else 1)

    def single(self, images: Tensor) -> SegmentorOutput:
        """
        One pass over float (B, 3, H, W), RGB, normalised, sides multiples of 14 and 28 or more.

        The features are the final tokens (B, D, H / 14, W / 14), the logits (B, K, 4 H / 14,
        4 W / 14), and ood (B, 2, H / 14, W / 14). Another size is a ValueError.
        """
        check_size(images)
        _check_sides(images)
        tokens, logits = self.segmentor(images)
        projected = self.ood_projector(tokens.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return SegmentorOutput(features=[tokens], logits=logits, ood=self.ood_head(projected))

    def sliding(self, images: Tensor) -> SegmentorOutput:
        """
        Average overlapping windows, the way the published numbers were made.

        From float (B, 3, H, W), RGB, normalised, sides of 28 pixels or more, to logits (B, K, H,
        W) and ood (B, 2, H, W), no features. An image smaller than the window gets windows as
        large as it allows.
        """
        _check_sides(images)
        window = [
            min(side, image // PATCH * PATCH)
            for side, image in zip(self.window, images.shape[2:], strict=True)
        ]
        return logits_over_windows(self.single, images, window, self.stride, self.window_batch)

    def forward(self, images: Tensor) -> SegmentorOutput:
        """Run :meth:`single` or :meth:`sliding`, as :attr:`mode` says."""
        return self.sliding(images) if self.mode == 'sliding' else self.single(images)


def _check_sides(images: Tensor) -> None:
    if min(images.shape[2:]) < 2 * PATCH:
        raise ValueError(
            f'UEM needs at least {2 * PATCH} pixels a side, got {tuple(images.shape[2:])}'
        )


def window_starts(size: int, window: int, stride: int) -> list[int]:
    """
    First pixel of each window along one axis; the last window is flush with the border.

    The official UEM code drops that one where (size - window) is a multiple of the stride.
    """
    if window > size:
        raise ValueError(f'window: expected at most the image side of {size}, got {window}')
    return [*range(0, size - window, stride), size - window]


def mean_over_windows(
    images: Tensor,
    function: Callable[[Tensor], Tensor],
    window: Sequence[int],
    stride: Sequence[int],
    batch: int | None = None,
) -> Tensor:
    """
    Average what `function` gives for each window over the pixels that windows share.

    From float (B, 3, H, W) images and a function from float (N, 3, *window) to (N, C, *window) to
    (B, C, H, W), float32 at least. `batch` windows of each image go through the function together,
    None = by the device.
    """
    count, _, height, width = images.shape
    rows = window_starts(height, window[0], stride[0])
    columns = window_starts(width, window[1], stride[1])
    corners = [(y, x) for y in rows for x in columns]
    # On a CPU one window fills the cores already, and more only leave the caches.
    batch = batch or (1 if images.device.type == 'cpu' else GPU_BATCH)
    total: Tensor | None = None
    for first in range(0, len(corners), batch):
        part = corners[first : first + batch]
        crops = [images[:, :, y : y + window[0], x : x + window[1]] for y, x in part]
        values = function(crops[0] if len(crops) == 1 else torch.cat(crops))
        values = values.unflatten(0, (len(part), count)).unbind(0)
        if total is None:
            # never in half precision: dozens of windows are summed
            wide = torch.promote_types(values[0].dtype, torch.float32)
            total = values[0].new_zeros(count, values[0].shape[1], height, width, dtype=wide)
        for (y, x), value in zip(part, values, strict=True):
            total[:, :, y : y + window[0], x : x + window[1]] += value
    assert total is not None
    over_rows = _hits(height, window[0], rows, images.device)
    return total.div_(over_rows[:, None] * _hits(width, window[1], columns, images.device))


def logits_over_windows(
    segmentor: Callable[[Tensor], SegmentorOutput],
    images: Tensor,
    window: Sequence[int],
    stride: Sequence[int],
    batch: int | None = None,
) -> SegmentorOutput:
    """Average a segmentor's `logits` and `ood`, resized to the window, by `mean_over_windows`."""

    def both(crops: Tensor) -> Tensor:
        out = segmentor(crops)
        assert out.logits is not None
        assert out.ood is not None
        return torch.cat([resize(out.logits, window), resize(out.ood, window)], dim=1)

    mean = mean_over_windows(images, both, window, stride, batch)
    return SegmentorOutput(logits=mean[:, :-2], ood=mean[:, -2:])


def _hits(size: int, window: int, starts: Sequence[int], device: torch.device) -> Tensor:
    """Count the windows over each pixel of one axis: float32 (size,)."""
    hits = torch.zeros(size, device=device)
    for start in starts:
        hits[start : start + window] += 1
    return hits
