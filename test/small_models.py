# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Small real networks that several tests share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ood_perception.models.output import InputSpec, SegmentorOutput
from ood_perception.profile import ImageConfig, Profile

UEM = {
    'embed_dim': 24,
    'depth': 4,
    'num_heads': 2,
    'out_indices': (0, 1, 2, 3),
    'table_size': 56,
    'channels': 8,
    'mlp_hidden': 8,
    'projector_hidden': (8, 8),
}
"""Options that make the networks of UEM on DINOv2 small."""

DINO = {**UEM, 'window': (28, 42), 'stride': (14, 28)}
"""The same over sliding windows."""

SMALL: dict[str, dict[str, object]] = {
    'dinov2_uem_gd': DINO,
    'dinov2_uem_dd': DINO,
    'dinov2_uem_gg': DINO,
    'dinov3_novelty': {'embed_dim': 48, 'depth': 5, 'num_heads': 3},
    'internimage_clusters': {
        'channels': 16,
        'depths': (1, 1, 1, 1),
        'groups': (1, 2, 4, 8),
        'head_channels': 8,
    },
}
"""Options that make the segmentors of profiles small."""


def small_profile(folder: Path, name: str, short_side: int = 96) -> str:
    """Write a shipped profile that looks at small images, for a command; returns its path."""
    profile, path = Profile.load(name), folder / f'small_{name}.yaml'
    dataclasses.replace(profile, image=ImageConfig(short_side)).save(path)
    return str(path)


class SmallSegmentor(nn.Module):
    """A real, small network with all that engines meet: BN, strides, resizing to another map."""

    spec = InputSpec()

    def __init__(self, ood: bool = True) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.coarse = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.head = nn.Conv2d(24, 5, 1)
        self.uem = nn.Conv2d(16, 2, 1) if ood else None
        generator = torch.Generator().manual_seed(0)
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
                if name.endswith('running_var'):
                    tensor.add_(1)

    def forward(self, images: torch.Tensor) -> SegmentorOutput:
        fine = self.fine(images)
        coarse = self.coarse(fine)
        up = F.interpolate(coarse, fine.shape[2:], mode='bilinear', align_corners=False)
        logits = self.head(torch.cat([fine, up], 1))
        ood = None if self.uem is None else self.uem(coarse)
        return SegmentorOutput([fine, coarse], logits, ood)


def tiny_sam(seed: int = 0, layers: int = 2) -> nn.Module:
    """SAM's own parts, small and random: 128 pixels, 2 blocks (one windowed), width 32."""
    from segment_anything import modeling

    torch.manual_seed(seed)
    return modeling.Sam(
        modeling.ImageEncoderViT(
            img_size=128,
            patch_size=16,
            embed_dim=32,
            depth=2,
            num_heads=2,
            out_chans=32,
            use_rel_pos=True,
            global_attn_indexes=(1,),
            window_size=4,
        ),
        modeling.PromptEncoder(32, (8, 8), (128, 128), 16),
        modeling.MaskDecoder(
            transformer_dim=32,
            transformer=modeling.TwoWayTransformer(layers, 32, 2, 64),
        ),
    ).eval()
