# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Upload: from frames on the host to one batch on the device. Download: the only copy back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ood_perception.models.output import InputSpec


def as_frame(frame: Any) -> Tensor:
    """
    Check one frame and view it as a tensor, without a copy.

    Args:
        frame: uint8 (H, W, 3) RGB numpy array or tensor, H and W at least 1.

    Raises:
        ValueError: another shape or dtype; the message says what was given.

    """
    if isinstance(frame, np.ndarray):
        if frame.dtype == np.uint8 and frame.ndim == 3:
            writable = frame if frame.flags.writeable and min(frame.strides) > 0 else frame.copy()
            frame = torch.from_numpy(writable)
    elif not isinstance(frame, Tensor):
        raise ValueError(
            f'frame: expected a uint8 (H, W, 3) RGB array, got {type(frame).__name__}'
        )
    if frame.dtype not in (torch.uint8, np.uint8) or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(
            f'frame: expected uint8 (H, W, 3) RGB, got {frame.dtype} {tuple(frame.shape)}'
        )
    if frame.shape[0] < 1 or frame.shape[1] < 1:
        raise ValueError(f'frame: expected at least 1x1 pixels, got {tuple(frame.shape[:2])}')
    return frame


def network_size(
    height: int, width: int, short_side: int, max_long_side: int, multiple_of: int
) -> tuple[int, int]:
    """
    Size (h, w) at which a frame is processed: aspect ratio kept, sides rounded to the multiple.

    Args:
        height: of the frame in pixels.
        width: of the frame in pixels.
        short_side: wanted shorter side in pixels, 0 = the frame's own.
        max_long_side: bound of the longer side in pixels, 0 = none.
        multiple_of: both sides become multiples of it, at least one multiple.

    """
    scale = short_side / min(height, width) if short_side else 1.0
    if max_long_side:
        scale = min(scale, max_long_side / max(height, width))
    h, w = (
        max(multiple_of, int(side * scale / multiple_of + 0.5) * multiple_of)
        for side in (height, width)
    )
    return h, w


def upload(frames: list[Tensor], size: tuple[int, int], device: torch.device) -> Tensor:
    """
    Bring frames to the device and to one size.

    Args:
        frames: uint8 (H, W, 3) RGB tensors, on the host or already on the device.
        size: (h, w) of the batch in pixels.
        device: where the batch is wanted.

    Returns:
        uint8 (B, 3, h, w) RGB in channels-last memory; resized bilinearly with antialiasing.

    """
    return torch.cat([_upload_one(frame, size, device) for frame in frames])


def _upload_one(frame: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
    if device.type == 'cuda' and frame.device.type == 'cpu':
        frame = frame.contiguous().pin_memory().to(device, non_blocking=True)
    image = frame.to(device).permute(2, 0, 1)[None]
    if image.shape[2:] == size:
        return image
    if device.type == 'cpu':
        # torch resizes channels-last uint8 with vector instructions on the CPU only
        return F.interpolate(image, size, mode='bilinear', antialias=True)
    resized = F.interpolate(image.float(), size, mode='bilinear', antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def normalise(images: Tensor, spec: InputSpec) -> Tensor:
    """
    Scale to 0..1, subtract the mean and divide by the standard deviation of `spec`.

    Args:
        images: uint8 (B, 3, h, w) RGB.
        spec: of the segmentor.

    Returns:
        float32 (B, 3, h, w), channels-last.

    """
    mean = torch.tensor(spec.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(spec.std, device=images.device).view(1, 3, 1, 1)
    scaled = images.to(torch.float32, memory_format=torch.channels_last)
    return (scaled - 255 * mean) * (1 / (255 * std))


def download(tensor: Tensor) -> np.ndarray:
    """Copy a tensor to a numpy array of the same shape and dtype (bfloat16 becomes float32)."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.detach().cpu().numpy()
