# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Upload: from frames on the host to one batch on the device. Download: the only copy back."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ood_perception.frames.colour import RawFrame, check_raw, to_rgb


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a segmentor wants its image."""

    # per channel (RGB), subtracted from the image scaled to 0..1; ImageNet's
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    # per channel (RGB), divides after the mean is subtracted
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    multiple_of: int = 1  # height and width must be multiples of this many pixels


def as_frame(frame: Any) -> Tensor | RawFrame:
    """View uint8 (H, W, 3) RGB, an array or a tensor, as a tensor; or a RawFrame. ValueError."""
    if isinstance(frame, RawFrame):
        check_raw(frame)
        return frame
    kind = getattr(frame, 'dtype', type(frame).__name__)
    shape = tuple(getattr(frame, 'shape', ()))
    if kind not in (torch.uint8, np.uint8) or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(
            f'frame: expected uint8 (H, W, 3) RGB of at least 1x1 pixels, got {kind} {shape}'
        )
    if isinstance(frame, np.ndarray):
        writable = frame.flags.writeable and min(frame.strides) > 0
        frame = torch.from_numpy(frame if writable else frame.copy())
    tensor: Tensor = frame
    return tensor


def as_depths(
    depths: Sequence[Any], frames: Sequence[Tensor | RawFrame]
) -> list[NDArray[np.float32] | None]:
    """Check depth images float32 (H, W) in metres of frames, None = there is none. ValueError."""
    if len(depths) != len(frames):
        raise ValueError(f'depths: expected {len(frames)} images, got {len(depths)}')
    for depth, frame in zip(depths, frames, strict=True):
        kind, size = getattr(depth, 'dtype', type(depth).__name__), tuple(frame.shape[:2])
        if depth is not None and (kind != np.float32 or depth.shape != size):
            shape = getattr(depth, 'shape', ())
            raise ValueError(f'depths: expected float32 {size} in metres, got {kind} {shape}')
    return list(depths)


def upload_depths(
    depths: Sequence[NDArray[np.float32] | None], size: tuple[int, int], device: torch.device
) -> Tensor | None:
    """A quarter of the size (h, w): float32 (B, h / 4, w / 4) metres, NaN where there is none."""
    if all(depth is None for depth in depths):
        return None
    height, width = size[0] // 4, size[1] // 4
    stack = np.full((len(depths), height, width), np.nan, np.float32)
    for quarter, depth in zip(stack, depths, strict=True):
        if depth is not None:
            cv2.resize(depth, (width, height), dst=quarter, interpolation=cv2.INTER_NEAREST)
    return torch.from_numpy(stack).to(device)


def network_size(
    height: int, width: int, short_side: int, max_long_side: int, multiple_of: int
) -> tuple[int, int]:
    """
    Size (h, w) at which a frame is processed: aspect ratio kept, sides rounded to the multiple.

    The wanted shorter side and the bound of the longer one are in pixels, 0 = the frame's own,
    none; both sides become at least one multiple.
    """
    scale = short_side / min(height, width) if short_side else 1.0
    if max_long_side:
        scale = min(scale, max_long_side / max(height, width))
    h, w = (
        max(multiple_of, int(side * scale / multiple_of + 0.5) * multiple_of)
        for side in (height, width)
    )
    return h, w


class Uploader:
    """
    Bring frames to the device and to one size.

    On a GPU a frame's bytes are copied into one of two pinned buffers of its size and sent from
    there on a stream of its own, so that the next frame travels while this one is computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None
        self._rings: dict[int, list[tuple[Tensor, torch.cuda.Event]]] = {}

    def __call__(self, frames: Sequence[Tensor | RawFrame], size: tuple[int, int]) -> Tensor:
        """
        Upload uint8 (H, W, 3) RGB tensors or raw frames to uint8 (B, 3, h, w) RGB.

        Resized bilinearly with antialiasing; a single frame that has the size already is a view of
        the caller's memory.
        """
        images = [_fit(self._image(frame), size) for frame in frames]
        return images[0] if len(images) == 1 else torch.cat(images)

    def _image(self, frame: Tensor | RawFrame) -> Tensor:
        """(1, 3, H, W) on the device."""
        if isinstance(frame, RawFrame):
            return to_rgb(self._send(torch.as_tensor(frame.data)), frame)[None]
        if frame.device.type == 'cpu' and self._stream is not None:
            frame = self._send(frame.reshape(-1)).view(frame.shape)
        return frame.to(self._device).permute(2, 0, 1)[None]

    def _send(self, data: Tensor) -> Tensor:
        if self._stream is None or data.device.type != 'cpu':
            return data.to(self._device)
        ring = self._rings.setdefault(data.numel(), [])
        if len(ring) < 2:
            pinned = torch.empty(data.numel(), dtype=torch.uint8, pin_memory=True)
            ring.append((pinned, torch.cuda.Event()))
        pinned, sent = ring[-1]
        ring.insert(0, ring.pop())
        sent.synchronize()  # only waits when the buffer's last copy is still under way
        pinned.copy_(data)
        with torch.cuda.stream(self._stream):
            moved = pinned.to(self._device, non_blocking=True)
            sent.record(self._stream)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        moved.record_stream(current)
        return moved


def _fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    if image.shape[2:] == size:
        return image
    height, width = image.shape[2:]
    if image.device.type == 'cpu' and height <= size[0] and width <= size[1]:
        # nothing has to be smoothed, and OpenCV is several times as fast as torch
        larger = cv2.resize(image[0].permute(1, 2, 0).numpy(), size[::-1])
        return torch.from_numpy(larger).permute(2, 0, 1)[None]
    if image.device.type == 'cpu':
        # torch resizes channels-last uint8 with vector instructions on the CPU only
        return F.interpolate(image, size, mode='bilinear', antialias=True)
    resized = F.interpolate(image.float(), size, mode='bilinear', antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def normalise(images: Tensor, spec: InputSpec, channels_last: bool = True) -> Tensor:
    """
    Scale to 0..1, subtract the mean and divide by the standard deviation of `spec`.

    From uint8 to float32, both (B, 3, h, w) RGB; `channels_last` is how the pixels lie afterwards.
    """
    offset, factor = _constants(spec, images.device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return (images.to(torch.float32, memory_format=layout) - offset).mul_(factor)


@functools.lru_cache(maxsize=16)
def _constants(spec: InputSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    # kept on the device: making them there anew would stall it at every frame
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    return 255 * mean, 1 / (255 * std)


def download(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """
    Bring tensors to the host as numpy arrays of the same shapes and dtypes.

    From a GPU everything travels as one block of bytes: one copy, one synchronisation.
    """
    if not tensors or all(tensor.device.type == 'cpu' for tensor in tensors):
        return [tensor.detach().numpy() for tensor in tensors]
    flat = [tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in tensors]
    block = torch.cat(flat)
    pinned = torch.empty(block.shape, dtype=torch.uint8, pin_memory=True)
    pinned.copy_(block, non_blocking=True)
    torch.cuda.current_stream(block.device).synchronize()
    host = pinned.numpy()
    arrays, start = [], 0
    for tensor, data in zip(tensors, flat, strict=True):
        dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        piece = host[start : start + data.numel()].copy()
        arrays.append(piece.view(dtype).reshape(tensor.shape))
        start += data.numel()
    return arrays
