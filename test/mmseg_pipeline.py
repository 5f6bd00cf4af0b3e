# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The uint8 test pipeline of mmsegmentation 0.27, for numbers equal to the published ones.

The package resizes on the device and in floating point; the published InternImage numbers were
made with OpenCV resizes of uint8 images, one or two of them, then the normalisation, and two
resizes of the logits back. The tests of the golden numbers need that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# mmcv's constants, in units of 0..255; 0.485 * 255 would differ in the last digits.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class TestPipeline:
    """
    Resize, stretch and normalise one image as a released configuration does.

    Attributes:
        scale: upper bounds of the long and of the short side in pixels; the image grows or shrinks
            until it meets one of them.
        multiple_of: then stretched so that both sides are multiples of this, 1 for not at all.

    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    scale: tuple[int, int] = (2048, 1024)
    multiple_of: int = 1

    def __call__(self, image: np.ndarray[Any, Any]) -> Tensor:
        """
        Prepare an image.

        Args:
            image: uint8 (H, W, 3) RGB.

        Returns:
            float32 (1, 3, H', W'), normalised RGB.

        Raises:
            ValueError: not a uint8 (H, W, 3) image.

        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f'expected a uint8 image (H, W, 3), got {image.dtype} {image.shape}')
        height, width = image.shape[:2]
        factor = min(max(self.scale) / max(height, width), min(self.scale) / min(height, width))
        image = _resize(image, int(height * factor + 0.5), int(width * factor + 0.5))
        step = self.multiple_of
        height, width = (math.ceil(side / step) * step for side in image.shape[:2])
        image = _resize(image, height, width)
        # OpenCV's arithmetic, since numpy's rounds the last digit another way.
        normalised = cv2.subtract(image.astype(np.float32), np.array([MEAN]))
        normalised = cv2.multiply(normalised, 1 / np.array([STD]))
        return torch.from_numpy(normalised).permute(2, 0, 1).unsqueeze(0).contiguous()


def _resize(image: np.ndarray[Any, Any], height: int, width: int) -> np.ndarray[Any, Any]:
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


PIPELINES = {
    'ade20k_512': TestPipeline((2048, 512), 32),
    'ade20k_640': TestPipeline((2560, 640), 32),
    'ade20k_896': TestPipeline((3584, 896), 32),
    'cityscapes': TestPipeline((2048, 1024)),
}
"""By data set and crop size, as the names of the released files say."""


def restore(logits: Tensor, network_size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
    """
    Resize logits to the network's input, then to the image, both bilinear.

    Args:
        logits: float (B, K, h, w) at head resolution.
        network_size: height and width that went into the network.
        image_size: height and width of the image.

    Returns:
        float (B, K, *image_size); argmax, softmax and maxima come after, not before.

    """
    for size in (network_size, image_size):
        logits = F.interpolate(logits, size=size, mode='bilinear', align_corners=False)
    return logits


@torch.inference_mode()
def segment_image(model: nn.Module, image: np.ndarray[Any, Any], pipeline: TestPipeline) -> Tensor:
    """
    Class logits of one image by the published test pipeline.

    Args:
        model: a segmentor with logits.
        image: uint8 (H, W, 3) RGB.
        pipeline: entry of `PIPELINES`.

    Returns:
        float (K, H, W).

    """
    parameter = next(model.parameters())
    images = pipeline(image).to(parameter.device, parameter.dtype)
    logits = model(images).logits
    height, width = images.shape[2:]
    return restore(logits, (height, width), (image.shape[0], image.shape[1]))[0]
