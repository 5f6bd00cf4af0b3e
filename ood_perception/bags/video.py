# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Videos in and out with PyAV (FFmpeg): every codec it has, rotation and frame counts included."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ood_perception.bags.files import shown
from ood_perception.frames.intensity import Intensity, Warn
from ood_perception.frames.picture import Rgb

RATES = (0.0, 1000.0)  # frames per second between which a video's own rate is believed


class VideoError(ValueError):
    """A video cannot be read or written; the text says why."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video says of itself."""

    codec: str  # its name
    rate: float  # frames per second, 0 = unknown
    length: int  # frames that it announces, 0 = unknown
    seconds: float  # that it announces, 0 = unknown
    counted: bool  # whether `length` was announced as such, not computed of the other two


def probe(path: Path) -> VideoInfo:
    """
    Read a video's header.

    Raises:
        VideoError: no video, or one whose codec is not there.
        OSError: it cannot be read.
    """
    with path.open('rb') as file, _opened(path, file) as container:
        stream = _stream(path, container)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        rate = rate if RATES[0] < rate < RATES[1] else 0.0
        seconds = _seconds(container, stream)
        length = max(0, stream.frames or round(seconds * rate))
        return VideoInfo(stream.codec_context.name, rate, length, seconds, stream.frames > 0)


def read_video(
    path: Path,
    intensity: Intensity | None = None,
    warn: Warn | None = None,
    problem: Callable[[str], None] | None = None,
) -> Iterator[tuple[float, Rgb]]:
    """
    Frames of a video, upright by its display matrix.

    Args:
        intensity: mapping of more than 8 bits of grey.
        warn: is told which range of those is used.
        problem: is told where the video stops being readable.

    Yields:
        Seconds from the beginning, and uint8 (H, W, 3) RGB.

    Raises:
        VideoError: not a video that can be read.
        OSError: it cannot be read.
    """
    import av

    intensity = intensity or Intensity()
    with path.open('rb') as file, _opened(path, file) as container:
        stream = _stream(path, container)
        stream.thread_type = 'AUTO'
        count = 0
        try:
            for frame in container.decode(stream):
                yield float(frame.time or 0.0), _rgb(frame, intensity, warn)
                count += 1
        except av.error.FFmpegError as error:
            if problem is not None:
                problem(f'cannot be read any further after {count} frames: {_reason(error)}')


class VideoWriter:
    """
    An H.264 file (MPEG-4 where there is no encoder for it); a context manager.

    Args:
        rate: frames per second.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = Fraction(rate).limit_denominator(1001)
        self._file: Any = None
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        import av

        self._file = self.path.open('wb')
        self._container = av.open(self._file, 'w', format='mp4')
        return self

    def write(self, image: Rgb) -> None:
        """Add a frame, uint8 (H, W, 3) RGB; later sizes are fitted into the first one."""
        import av

        if self._stream is None:
            self._begin(*image.shape[:2])
        height, width = self._stream.height, self._stream.width
        frame = av.VideoFrame.from_ndarray(fitted(image, height, width), format='rgb24')
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            if kind is None and self._stream is not None:
                for packet in self._stream.encode():
                    self._container.mux(packet)
            self._container.close()
        finally:
            self._file.close()

    def _begin(self, height: int, width: int) -> None:
        import av

        codec = next(c for c in ('libx264', 'libopenh264', 'mpeg4') if c in av.codecs_available)
        self._stream = self._container.add_stream(codec, rate=self.rate)
        # Its chroma has half the size.
        self._stream.width, self._stream.height = max(2, width & ~1), max(2, height & ~1)
        self._stream.pix_fmt = 'yuv420p'


def fitted(image: Rgb, height: int, width: int) -> Rgb:
    """Scale a picture into a size, its proportions kept, with black bars."""
    import cv2

    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    scale = min(height / image.shape[0], width / image.shape[1])
    h, w = (max(1, round(side * scale)) for side in image.shape[:2])
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - h) // 2, (width - w) // 2
    out[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
    return out


def _opened(path: Path, file: Any) -> Any:
    # PyAV's level of logging stays as it is, at none: with another one the threads of a codec ask
    # for the interpreter, and whoever closes a video before its end waits for them for ever.
    import av

    try:
        return av.open(file, 'r', metadata_errors='replace')
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise VideoError(
            f'{shown(path)} is no picture, video or bag that can be read ({_reason(error)})'
        ) from error


def _stream(path: Path, container: Any) -> Any:
    if not container.streams.video:
        raise VideoError(f'{shown(path)} holds no video')
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise VideoError(
            f'{shown(path)}: there is no decoder for its codec; convert it: '
            'ffmpeg -i IN -c:v libx264 OUT.mp4'
        )
    return stream


def _seconds(container: Any, stream: Any) -> float:
    """Duration that a file announces for its video, 0 = unknown."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if match := re.fullmatch(r'(\d+):(\d+):([\d.]+)', stream.metadata.get('DURATION', '')):
        return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
    alone = len(container.streams) == 1  # sound may be longer than the pictures
    return float(container.duration or 0) / 1e6 if alone else 0.0


def _rgb(frame: Any, intensity: Intensity, warn: Warn | None) -> Rgb:
    name = frame.format.name
    if name.startswith('gray') and not name.startswith('gray8') and name != 'gray':
        if name in ('gray16le', 'gray16be'):
            image = frame.to_ndarray().astype(np.uint16, copy=False)
        else:
            image = frame.reformat(format='gray16le').to_ndarray()
        image = np.repeat(intensity(image, name, warn)[..., None], 3, -1)
    else:
        image = frame.to_ndarray(format='rgb24')
    turns = round(getattr(frame, 'rotation', 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns) if turns else image)


def _reason(error: Exception) -> str:
    return str(getattr(error, 'strerror', '') or error)
