# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""InternImage with a segmentation head, as mmsegmentation's EncoderDecoder names its parts."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ood_perception.models.internimage import VARIANTS, InternImage
from ood_perception.models.output import InputSpec, SegmentorOutput
from ood_perception.models.segformer import SegformerHead
from ood_perception.models.upernet import FCNHead, UPerHead

DEFAULT_CLASSES = 150
"""Rows of the classifier in every released file, also of those trained on 19 classes."""


class EncoderDecoder(nn.Module):
    """
    Backbone, head, and the auxiliary head that only training uses.

    Args:
        decode_head: maps -> logits, with a classifier `conv_seg`.
        auxiliary_head: None leaves it out; checkpoints load either way.
        used_classes: keep only the first so many logits (the released Cityscapes files have 150
            rows of which 19 are trained), None keeps all.
        adapt_classes: let a checkpoint set the number of classes.

    Attributes:
        spec: how images are to be normalised.
        optional_keys: prefixes of parameters that a checkpoint may lack.
    """

    spec = InputSpec()
    optional_keys = ('auxiliary_head.',)
    any_batch = False
    """Exports are for one batch: with any, its many reshapes take minutes to trace."""

    def __init__(
        self,
        backbone: InternImage,
        decode_head: UPerHead | SegformerHead,
        auxiliary_head: FCNHead | None = None,
        used_classes: int | None = None,
        adapt_classes: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head
        self.used_classes = used_classes
        self.adapt_classes = adapt_classes

    def set_num_classes(self, num_classes: int) -> None:
        """Replace the classifiers by ones with `num_classes` rows, on the same device."""
        for head in (self.decode_head, self.auxiliary_head):
            if head is not None and head.conv_seg.out_channels != num_classes:
                old = head.conv_seg
                head.conv_seg = nn.Conv2d(old.in_channels, num_classes, 1).to(
                    old.weight.device, old.weight.dtype
                )

    def forward(self, images: Tensor) -> SegmentorOutput:
        """
        Segment normalised images of any size.

        Args:
            images: float (B, 3, H, W), RGB, normalised with :attr:`spec`.

        Returns:
            features: the four stage outputs (B, C * 2**i, H / 4 / 2**i, W / 4 / 2**i), sizes
            rounded up; logits: (B, K, H / 4, W / 4).
        """
        features = self.backbone(images)
        logits = self.decode_head(features)
        if self.used_classes is not None:
            logits = logits[:, : self.used_classes]
        return SegmentorOutput(features=features, logits=logits)


def build_internimage(
    variant: str,
    head: str,
    num_classes: int | None = None,
    used_classes: int | None = None,
    head_channels: int | None = None,
    aux_channels: int = 256,
    auxiliary: bool = True,
    **backbone: Any,
) -> EncoderDecoder:
    """
    Build `internimage_{variant}_{head}` with random weights.

    Args:
        num_classes: rows of the classifier; None takes 150 and lets a checkpoint change it.
        used_classes: keep only the first so many logits.
        head_channels: inner width of the head; None is the published one (512 or 256).
        aux_channels: inner width of the auxiliary head.
        auxiliary: build UPerNet's auxiliary head (never run here; part of the published counts).
        **backbone: arguments of :class:`InternImage` that differ from the variant's.
    """
    net = InternImage(**{**VARIANTS[variant], **backbone})
    classes = DEFAULT_CLASSES if num_classes is None else num_classes
    decoder: UPerHead | SegformerHead
    if head == 'upernet':
        decoder = UPerHead(net.channels, classes, head_channels or 512)
    else:
        decoder = SegformerHead(net.channels, classes, head_channels or 256)
    aux = None
    if auxiliary and head == 'upernet':
        aux = FCNHead(net.channels[-2], classes, aux_channels)
    return EncoderDecoder(net, decoder, aux, used_classes, adapt_classes=num_classes is None)
