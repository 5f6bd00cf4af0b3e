# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
UEM: a small head on DINOv2 that tells outliers from inliers, beside a segmentor of known classes.

Paper: Nayal, Shoeb, Güney, "A Likelihood Ratio-Based Approach to Segmenting Unknown Objects",
IJCV 2025. Key names are those of the official checkpoints, except inside DINOv2 (timm's).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ood_perception.models.dinov2 import PATCH, VARIANTS, DINOv2, check_size
from ood_perception.models.fpn import FPN
from ood_perception.models.heads import MLP, build_head
from ood_perception.models.output import InputSpec, SegmentorOutput
from ood_perception.models.windows import logits_over_windows

WINDOW = (518, 1036)
"""Height and width of the published windows in pixels."""

STRIDE = (140, 140)
"""Pixels between two published windows."""

WINDOWS: dict[str, dict[str, Any]] = {
    'full': {'mode': 'sliding', 'stride': STRIDE},
    'coarse': {'mode': 'sliding', 'stride': (WINDOW[0] // 2, WINDOW[1] // 2)},
    'single': {'mode': 'single'},
}
"""Published windows, windows that overlap by half, or one pass over the whole image."""


class Backbone(nn.Module):
    """DINOv2, which stays as it is, and the decoder that is learnt on it."""

    def __init__(self, dinov2: DINOv2, decoder: FPN) -> None:
        super().__init__()
        self.dinov2 = dinov2
        self.learnable_layers = decoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """
        Describe normalised images.

        Args:
            images: float (B, 3, H, W), sides multiples of 14.

        Returns:
            final tokens (B, D, H / 14, W / 14) and decoded map (B, C, 4 H / 14, 4 W / 14).
        """
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
        segmentor: images -> tokens and class logits.
        projector: MLP on the final tokens.
        head: two channels on the projector's output, 0 = inlier, 1 = outlier.
        mode: what :meth:`forward` does: 'single' pass, or 'sliding' windows as published.
        window: height and width of the sliding windows in pixels.
        stride: pixels between windows, down and across.
        window_batch: windows that go through the network together, None = by the device.

    Attributes:
        spec: how images are to be normalised. Sides are multiples of 14 in single mode.
    """

    def __init__(
        self,
        segmentor: Segmentor,
        projector: MLP,
        head: nn.Module,
        mode: str = 'single',
        window: Sequence[int] = WINDOW,
        stride: Sequence[int] = STRIDE,
        window_batch: int | None = None,
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
        self.segmentor = segmentor
        self.ood_projector = projector
        self.ood_head = head
        self.mode, self.window_batch = mode, window_batch
        self.window, self.stride = tuple(window), tuple(stride)
        self.spec = InputSpec(multiple_of=PATCH if mode == 'single' else 1)

    def single(self, images: Tensor) -> SegmentorOutput:
        """
        One pass over the whole images.

        Args:
            images: float (B, 3, H, W), RGB, normalised, sides multiples of 14 and 28 or more.

        Returns:
            features: [final tokens (B, D, H / 14, W / 14)]; logits: (B, K, 4 H / 14, 4 W / 14);
            ood: (B, 2, H / 14, W / 14).

        Raises:
            ValueError: a size that is not a multiple of 14, or too small.
        """
        check_size(images)
        if min(images.shape[2:]) < 2 * PATCH:
            raise ValueError(
                f'UEM needs at least {2 * PATCH} pixels a side, got {tuple(images.shape[2:])}'
            )
        tokens, logits = self.segmentor(images)
        projected = self.ood_projector(tokens.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return SegmentorOutput(features=[tokens], logits=logits, ood=self.ood_head(projected))

    def sliding(self, images: Tensor) -> SegmentorOutput:
        """
        Average overlapping windows, the way the published numbers were made.

        The logits of each window are resized to the window, summed, and divided by the number of
        windows over each pixel. The last window is flush with the border, always. An image
        smaller than the window gets windows as large as it allows.

        Args:
            images: float (B, 3, H, W), RGB, normalised, sides of 28 pixels or more.

        Returns:
            logits: (B, K, H, W); ood: (B, 2, H, W); no features.
        """
        sides = [side // PATCH * PATCH for side in images.shape[2:]]
        window = [min(side, limit) for side, limit in zip(self.window, sides, strict=True)]
        if min(window) < 2 * PATCH:
            raise ValueError(
                f'UEM needs at least {2 * PATCH} pixels a side, got {tuple(images.shape[2:])}'
            )
        return logits_over_windows(self.single, images, window, self.stride, self.window_batch)

    def forward(self, images: Tensor) -> SegmentorOutput:
        """Run :meth:`single` or :meth:`sliding`, as :attr:`mode` says."""
        return self.sliding(images) if self.mode == 'sliding' else self.single(images)


def build_uem(
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
    windows: str | None = None,
    **dinov2: Any,
) -> UEM:
    """
    Build `uem_{form}` with random weights.

    Args:
        form: two letters, the segmentor's head and the UEM's: 'd' linear, 'g' GMMSeg.
        variant: size of DINOv2 with registers, key of `dinov2.VARIANTS`.
        num_classes: K, known classes.
        num_components: Gaussians per class of GMMSeg heads.
        channels: width of decoder and projection.
        mlp_hidden: hidden width of the decoder's MLP.
        projector_hidden: hidden widths of the projector.
        out_indices: four blocks of DINOv2 for the decoder, counted from 0; the last must be the
            network's last, whose tokens the projector takes.
        mode, window, stride, window_batch: see :class:`UEM`.
        windows: key of `WINDOWS`, in place of `mode` and `stride`.
        **dinov2: arguments of :class:`DINOv2` that differ from the variant's.
    """
    if windows is not None:
        if windows not in WINDOWS:
            raise ValueError(f'windows: expected one of {", ".join(WINDOWS)}, got {windows!r}')
        chosen = WINDOWS[windows]
        mode, stride = chosen['mode'], chosen.get('stride', stride)
    options = {'registers': 4, **VARIANTS[variant], **dinov2}
    if len(out_indices) != 4 or out_indices[-1] != options['depth'] - 1:
        raise ValueError(
            f'out_indices: expected four blocks, the last being {options["depth"] - 1}, '
            f'got {tuple(out_indices)}'
        )
    net = DINOv2(out_indices=out_indices, **options)
    decoder = FPN(net.embed_dim, channels, mlp_hidden)
    head = build_head(form[0], channels, num_classes, num_components)
    return UEM(
        Segmentor(Backbone(net, decoder), head),
        MLP((net.embed_dim, *projector_hidden, channels)),
        build_head(form[1], channels, 2, num_components),
        mode,
        window,
        stride,
        window_batch,
    )
