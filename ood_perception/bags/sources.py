# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
One opener for everything that pictures come from, used by every command.

A folder of pictures, a picture, a video, a rosbag2 (folder, .mcap or .db3, with metadata.yaml or
without), a webcam, or the proving ground. What a file is, its bytes say.
"""

from __future__ import annotations

import itertools
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from ood_perception.bags import reading
from ood_perception.bags.files import SUFFIXES, is_picture, read_picture, shown, visible
from ood_perception.bags.video import VideoError, probe, read_video
from ood_perception.frames.decode import decode, stamp_ns
from ood_perception.frames.intensity import Intensity
from ood_perception.frames.picture import MAX_FILE_PIXELS, BadImage, Rgb


class SourceError(ValueError):
    """A source cannot be opened, or yields nothing; the text says which and what would do."""


@dataclass(frozen=True)
class Item:
    """One picture of a source, or why there is none."""

    file: str  # its file's name; of a video or bag its number
    name: str  # for what is written about it, unlike every other item's of the source
    image: Rgb | None  # uint8 (H, W, 3) RGB, None where it cannot be used
    reason: str = ''  # why not; '' where it can
    stamp_ns: int | None = None  # of its header or in its video, None = none


@dataclass(frozen=True)
class Source:
    """A stream of pictures."""

    name: str  # for people
    rate: float  # frames per second of its own, 0 = none (pictures)
    length: int  # number of frames that it announces, 0 = unknown or endless
    focal: float  # focal length in pixels, 0 = unknown
    live: bool  # whether it sets its own pace (webcam)
    # function that starts it anew and yields its `Item`s, unusable ones too
    items: Callable[[], Iterator[Item]]
    # what was found out while reading: the range of deep images, a video's early end
    notes: list[str] = field(default_factory=list)
    # file and reason of what :meth:`frames` could not use
    skipped: list[tuple[str, str]] = field(default_factory=list)
    kind: str = 'pictures'  # 'pictures', 'video', 'bag', 'webcam' or 'proving-ground'

    def usable(self) -> Iterator[Item]:
        """
        Items with a picture, from the beginning; the others are noted as skipped.

        Raises:
            SourceError: there is not one.
        """
        self.skipped.clear()
        count = 0
        for item in self.items():
            if item.image is not None:
                count += 1
                yield item
            else:
                self.skipped.append((item.file, item.reason))
        if not count:
            raise nothing(self)

    def frames(self) -> Iterator[Rgb]:
        """Pictures of :meth:`usable`, uint8 (H, W, 3) RGB."""
        return (item.image for item in self.usable() if item.image is not None)


def nothing(source: Source) -> SourceError:
    """Error of a source without one usable picture; its first reasons are named."""
    reasons = [*source.notes, *(f'{shown(file)}: {why}' for file, why in source.skipped)]
    why = '; '.join(reasons[:3]) or 'it is empty'
    return SourceError(f'{source.name}: not one picture could be read ({why})')


def open_source(
    text: str,
    width: int = 0,
    height: int = 0,
    topic: str = '',
    intensity: tuple[float, float] | None = None,
) -> Source:
    """
    Open a source by its name.

    Args:
        text: ``proving-ground``, ``proving-ground:SEED``, the number of a webcam, or the path of a
            folder of pictures, a picture, a video or a rosbag2.
        width: of the frames; 0 = the source's own (proving ground: 640).
        height: of the frames; 0 = the source's own (proving ground: 480).
        topic: of a bag's images, '' = the only one.
        intensity: (low, high) of images of more than 8 bits, None = estimated and held.

    Raises:
        SourceError: nothing there, nothing readable in it, or half a size.
        BagError: a bag that cannot be read, or without that topic.
        OSError: a file that cannot be read.
    """
    if (width > 0) != (height > 0) or width < 0 or height < 0:
        raise SourceError(f'size: give both width and height or none, got {width}x{height}')
    if text == 'proving-ground' or text.startswith('proving-ground:'):
        return _proving_ground(text, width, height)
    path = Path(text).expanduser()
    if text.isdigit() and not path.exists():
        return _webcam(int(text), width, height)
    if not path.exists():
        raise SourceError(
            f'{shown(text)!r} is no folder, picture, video or bag; other sources are '
            'proving-ground[:SEED] and the number of a webcam'
        )
    if stat.S_ISCHR(path.stat().st_mode) and (number := re.search(r'\d+$', path.name)):
        return _webcam(int(number[0]), width, height)
    if not path.is_dir() and not path.is_file():  # a pipe would be waited for
        raise SourceError(f'{shown(path)} is neither a file nor a folder')
    if path.is_dir():
        source = _folder(path, intensity, topic)
    elif reading.is_bag(path):
        source = _bag(path, topic, intensity)
    elif is_picture(path) and path.suffix.lower() != '.gif':
        source = _pictures([path], shown(path), intensity)
    elif path.suffix.lower() in set(SUFFIXES) - {'.gif'}:
        raise SourceError(f'{shown(path)} is no picture, video or bag that can be read')
    else:
        source = _video(path, intensity)
    return _resized(source, width, height) if width else source


def _resized(source: Source, width: int, height: int) -> Source:
    def items() -> Iterator[Item]:
        for item in source.items():
            image = item.image
            if image is not None and image.shape[:2] != (height, width):
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
                item = replace(item, image=image)
            yield item

    return replace(source, items=items)


def _proving_ground(text: str, width: int, height: int) -> Source:
    from ood_simulation import ProvingGround

    seed = text.partition(':')[2] or '0'
    if not seed.isdigit():
        raise SourceError(f'seed: expected a whole number of 0 or more, got {seed!r}')
    ground = ProvingGround(int(seed), width or 640, height or 480)

    def items() -> Iterator[Item]:
        for number, frame in enumerate(ground):
            yield _numbered(number, frame.image, round(frame.stamp * 1e9))

    return Source(text, ground.rate, 0, ground.focal, False, items, kind='proving-ground')


def _numbered(number: int, image: Rgb | None, stamp: int | None, reason: str = '') -> Item:
    return Item(f'{number:06d}', f'{number:06d}', image, reason, stamp)


def _folder(path: Path, intensity: tuple[float, float] | None, topic: str) -> Source:
    entries = visible(path.iterdir())
    if reading.is_bag(path) and (
        (path / 'metadata.yaml').is_file() or not any(_looks_like_picture(e) for e in entries)
    ):
        return _bag(path, topic, intensity)
    if not any(_looks_like_picture(e) for e in entries):
        films = [e.name for e in entries if e.suffix.lower() in ('.mp4', '.avi', '.mkv', '.mov')]
        hint = f'; it has videos, give one of them: {shown(films[0])}' if films else ''
        folders = [e.name for e in entries if e.is_dir()]
        hint = hint or (f'; it has folders, give one: {shown(folders[0])}' if folders else '')
        named = [e.name for e in entries if e.suffix.lower() in SUFFIXES and e.is_file()]
        if named:
            hint = f'; none of {len(named)} files such as {shown(named[0])} can be read as one'
        raise SourceError(f'no pictures in {shown(path)}{hint}')
    return _pictures(entries, shown(path), intensity)


def _looks_like_picture(path: Path) -> bool:
    try:
        return path.is_file() and is_picture(path)
    except OSError:
        return False


def _pictures(files: list[Path], name: str, intensity: tuple[float, float] | None) -> Source:
    stems = Counter(f.stem.lower() for f in files if f.is_file())
    notes: list[str] = []

    def items() -> Iterator[Item]:
        mapping = Intensity(intensity)
        for file in files:
            # Two files of one stem keep their suffixes in what is written about them.
            label = file.stem if stems[file.stem.lower()] <= 1 else file.name
            image, reason = None, ''
            try:
                if file.is_dir():
                    reason = 'a folder; those below are not looked into'
                elif file.is_symlink() and not file.exists():
                    reason = 'a link to nothing'
                elif not file.is_file():  # a pipe would be waited for
                    reason = 'no file'
                elif not is_picture(file):
                    reason = 'no picture' if file.stat().st_size else 'empty'
                else:
                    image = read_picture(file, mapping, _noting(notes, file.name)).rgb
            except BadImage as error:
                reason = str(error).partition(': ')[2] or str(error)
            except OSError as error:
                reason = error.strerror or str(error)
            yield Item(file.name, label, image, reason)

    return Source(name, 0.0, len(files), 0.0, False, items, notes)


def _noting(notes: list[str], where: str) -> Callable[[str], None]:
    def note(text: str) -> None:
        if len(notes) < 20:
            notes.append(f'{shown(where)}: {text}')

    return note


def _video(path: Path, intensity: tuple[float, float] | None) -> Source:
    try:
        info = probe(path)
    except VideoError as error:
        raise SourceError(str(error)) from error
    name, notes = shown(path), []  # type: tuple[str, list[str]]

    def items() -> Iterator[Item]:
        notes.clear()
        note = _noting(notes, path.name)
        number, seconds = -1, 0.0
        for number, (seconds, image) in enumerate(
            read_video(path, Intensity(intensity), note, note)
        ):
            yield _numbered(number, image, round(seconds * 1e9))
        if not info.counted and seconds < 0.9 * info.seconds - 1.0:
            note(f'ends after {seconds:.1f} of the {info.seconds:.1f} s that it announces')
        if info.counted and number + 1 < info.length:
            note(f'{number + 1} of the {info.length} frames that it announces ({info.codec})')

    return Source(name, info.rate, info.length, 0.0, False, items, notes, kind='video')


def _bag(path: Path, topic: str, intensity: tuple[float, float] | None) -> Source:
    topic = reading.image_topic(path, topic)
    with reading.Bag(path) as bag:
        count = sum(c.msgcount for c in bag.connections if c.topic == topic)
        seconds = max(0, bag.end_time - 1 - bag.start_time) / 1e9
        notes = [bag.damage] if bag.damage else []
    rate = (count - 1) / seconds if count > 1 and seconds > 0 else 0.0

    def items() -> Iterator[Item]:
        mapping = Intensity(intensity)
        note = _noting(notes, topic)
        number = -1
        for number, (written, message) in enumerate(reading.read_topic(path, topic, note)):
            image, reason = None, ''
            try:
                image = decode(message, MAX_FILE_PIXELS, note, mapping)
            except BadImage as error:
                reason = str(error)
            yield _numbered(number, image, stamp_ns(message.header) or written, reason)
        if number + 1 < count:
            note(f'{number + 1} of {count} messages could be read')

    name = f'{shown(path)} {topic}'
    rate = rate if rate < 1000 else 0.0
    return Source(name, rate, count, 0.0, False, items, notes, kind='bag')


def _webcam(number: int, width: int, height: int) -> Source:
    name = f'webcam {number}'

    def opened() -> cv2.VideoCapture:
        capture = cv2.VideoCapture(number)
        if not capture.isOpened():
            raise SourceError(f'{name}: no webcam of this number')
        if width:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        return capture

    def items() -> Iterator[Item]:
        capture = opened()
        try:
            for count in itertools.count():
                good, image = capture.read()
                if not good:
                    return
                rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                yield _numbered(count, rgb, None)
        finally:
            capture.release()

    first = opened()
    rate = float(first.get(cv2.CAP_PROP_FPS) or 0.0)
    first.release()
    rate = rate if 0 < rate < 1000 else 0.0
    source = Source(name, rate, 0, 0.0, True, items, kind='webcam')
    return _resized(source, width, height) if width else source
