# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Where a camera's pictures come from: folder, picture, video, webcam or the proving ground."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm')


class SourceError(ValueError):
    """A source cannot be opened; the text says which and what would do."""


@dataclass(frozen=True)
class Source:
    """
    A stream of pictures.

    Attributes:
        name: for people.
        rate: frames per second of its own, 0 = none (pictures).
        length: number of frames, 0 = unknown or endless.
        focal: focal length in pixels, 0 = unknown.
        live: whether it sets its own pace (webcam).
        frames: function that starts it anew and yields uint8 (H, W, 3) RGB.

    """

    name: str
    rate: float
    length: int
    focal: float
    live: bool
    frames: Callable[[], Iterator[np.ndarray]]


def open_source(text: str, width: int = 0, height: int = 0) -> Source:
    """
    Open a source by its name.

    Args:
        text: ``proving-ground``, ``proving-ground:SEED``, the number of a webcam, or the path of a
            folder of pictures, a picture or a video.
        width: of the frames; 0 = the source's own (proving ground: 640).
        height: of the frames; 0 = the source's own (proving ground: 480).

    Raises:
        SourceError: nothing there, nothing readable in it, or half a size.

    """
    if (width > 0) != (height > 0) or width < 0 or height < 0:
        raise SourceError(f'size: give both width and height or none, got {width}x{height}')
    if text == 'proving-ground' or text.startswith('proving-ground:'):
        return _proving_ground(text, width, height)
    if text.isdigit() and not Path(text).exists():
        return _capture(int(text), f'webcam {text}', width, height, live=True)
    path = Path(text).expanduser()
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in PICTURES)
        if not files:
            raise SourceError(f'no pictures ({", ".join(PICTURES)}) in {path}')
        return _pictures(files, str(path), width, height)
    if path.is_file():
        if path.suffix.lower() in PICTURES:
            return _pictures([path], str(path), width, height)
        return _capture(str(path), str(path), width, height, live=False)
    raise SourceError(
        f'{text!r} is no folder, video or picture; other sources are proving-ground[:SEED] and '
        'the number of a webcam'
    )


def _resized(image: np.ndarray, width: int, height: int) -> np.ndarray:
    if width and image.shape[:2] != (height, width):
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return image


def _proving_ground(text: str, width: int, height: int) -> Source:
    from ood_perception.simulation import ProvingGround

    seed = text.partition(':')[2] or '0'
    if not seed.isdigit():
        raise SourceError(f'seed: expected a whole number of 0 or more, got {seed!r}')
    ground = ProvingGround(int(seed), width or 640, height or 480)
    return Source(
        name=text,
        rate=ground.rate,
        length=0,
        focal=ground.focal,
        live=False,
        frames=lambda: (frame.image for frame in ground),
    )


def _pictures(files: list[Path], name: str, width: int, height: int) -> Source:
    def frames() -> Iterator[np.ndarray]:
        for file in files:
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            # A damaged picture is left out; the next one may be good.
            if image is not None:
                yield _resized(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), width, height)

    if next(frames(), None) is None:
        raise SourceError(f'none of the {len(files)} pictures in {name} can be read')
    return Source(name, 0.0, len(files), 0.0, False, frames)


def _capture(what: int | str, name: str, width: int, height: int, live: bool) -> Source:
    def opened() -> cv2.VideoCapture:
        capture = cv2.VideoCapture(what)
        if not capture.isOpened():
            kind = 'no webcam of this number' if live else 'not a video that OpenCV can read'
            raise SourceError(f'{name}: {kind}')
        if live and width:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        return capture

    def frames() -> Iterator[np.ndarray]:
        capture = opened()
        try:
            while True:
                good, image = capture.read()
                if not good:
                    return
                yield _resized(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), width, height)
        finally:
            capture.release()

    probe = opened()
    rate = float(probe.get(cv2.CAP_PROP_FPS) or 0.0)
    count = 0 if live else max(0, int(probe.get(cv2.CAP_PROP_FRAME_COUNT)))
    probe.release()
    return Source(name, rate if 0 < rate < 1000 else 0.0, count, 0.0, live, frames)
