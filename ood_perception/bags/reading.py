# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""rosbag2 files without ROS: list and read topics, whole or damaged, with metadata or without."""

from __future__ import annotations

import heapq
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ood_perception.bags.files import natural, shown
from ood_perception.bags.unfinished import UnfinishedMcap

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

STORAGES = ('mcap', 'sqlite3')
STORAGE_SUFFIXES = ('.mcap', '.db3')
IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')

ROS_1 = (
    '{0} is a bag of ROS 1; convert it: rosbags-convert --src {0} --dst {1} '
    '(of the package rosbags, which is installed)'
)


class BagError(ValueError):
    """A bag cannot be read or written; the text says which and why."""


@dataclass(frozen=True)
class Topic:
    """One topic of a bag."""

    name: str  # with a leading slash
    type: str  # for example ``sensor_msgs/msg/Image``
    count: int  # messages


def typestore() -> Typestore:
    """Message definitions of the sourced distribution, else those of Kilted."""
    from rosbags.typesys import Stores, get_typestore

    name = f'ros2_{os.environ.get("ROS_DISTRO", "kilted")}'
    known = {store.value: store for store in Stores}
    return get_typestore(known.get(name, Stores.ROS2_KILTED))


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: a storage file, or a folder that holds some."""
    if path.is_dir():
        meta = path / 'metadata.yaml'  # it may be empty, where the recorder was killed
        named = meta.is_file() and b'rosbag2_bagfile_information' in meta.read_bytes()[:4096]
        return named or bool(storage_files(path))
    with path.open('rb') as file:
        head = file.read(16)
    return head.startswith((b'\x89MCAP', b'SQLite format 3', b'#ROSBAG')) or (
        path.suffix.lower() in (*STORAGE_SUFFIXES, '.bag')
    )


def storage_files(folder: Path) -> list[Path]:
    """Visible .mcap and .db3 files of a folder, in the order in which they were recorded."""
    files = (p for p in folder.iterdir() if p.suffix.lower() in STORAGE_SUFFIXES)
    return sorted((p for p in files if p.name[0] != '.' and p.is_file()), key=natural)


class Bag:
    """
    A bag's folder or a single .mcap or .db3 file; a context manager.

    What metadata.yaml says is believed only where the files have nothing better to say: topics
    are told apart by name and type, whatever their QoS, and counts are those of the files.

    Raises:
        BagError: no such bag, or nothing of it can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.connections: list[Any] = []  # as of rosbags, one for each name and type
        self.damage = ''  # what is missing of the bag; '' = nothing
        self.start_time = self.end_time = 0  # of the first message, after the last one, ns
        self._reader: Any = None
        self._storages: list[Any] = []

    def __enter__(self) -> Bag:
        self._open()
        merged: dict[tuple[str, str], Any] = {}
        for storage in self._storages:
            for c in storage.connections:
                known = merged.get((c.topic, c.msgtype))
                merged[c.topic, c.msgtype] = (
                    c._replace(id=len(merged) + 1)
                    if known is None
                    else known._replace(msgcount=known.msgcount + c.msgcount)
                )
        self.connections = list(merged.values())
        filled = [s for s in self._storages if any(c.msgcount for c in s.connections)]
        times = [getattr(s, 'metadata', s) for s in filled]
        self.start_time = min((t.start_time for t in times), default=(1 << 63) - 1)
        self.end_time = max((t.end_time for t in times), default=0)
        self._compare_with_promise()
        return self

    def __exit__(self, *_: object) -> None:
        for opened in [self._reader] if self._reader is not None else self._storages:
            opened.close()

    def messages(
        self, connections: Collection[Any] = (), start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Any, int, bytes]]:
        """
        Messages of all files in the order of their times.

        Args:
            connections: of :attr:`connections`, empty for all.

        Yields:
            Connection, time of the record in ns, CDR bytes.

        Raises:
            BagError: the files are damaged here, and the rest of them cannot be read.
        """
        chosen = {(c.topic, c.msgtype): c for c in connections or self.connections}

        def of(storage: Any) -> Iterator[tuple[Any, int, bytes]]:
            wanted = [c for c in storage.connections if (c.topic, c.msgtype) in chosen]
            if not wanted:
                return
            try:
                for c, stamp, raw in storage.messages(wanted, start, stop):
                    yield chosen[c.topic, c.msgtype], stamp, _plain(raw)
            except Exception as error:  # every storage plugin has its own exceptions
                text = f'bag is damaged, the rest of it is missing: {error}'
                raise BagError(f'{shown(self.path)}: {text}') from error

        yield from heapq.merge(*map(of, self._storages), key=lambda item: item[1])

    def _open(self) -> None:
        from rosbags.rosbag2 import Reader

        path = self.path
        if not path.exists():
            raise BagError(f'no bag at {shown(path)}')
        if path.is_file():
            with path.open('rb') as stream:
                if stream.read(8) == b'#ROSBAG ':
                    raise BagError(ROS_1.format(shown(path), shown(path.with_suffix(''))))
            self._storages = [self._storage(path)]
            return
        why = 'it has no metadata.yaml'
        if (path / 'metadata.yaml').is_file():
            try:
                self._reader = Reader(path)
                self._reader.open()
                self._storages = list(self._reader.storage.storages)
                return
            except Exception as error:  # every storage plugin has its own exceptions
                self._reader, why = None, ' '.join(str(error).split())
                self.damage = f'metadata.yaml does not describe the bag: {why}'
        files = storage_files(path)
        if not files:
            raise BagError(f'{shown(path)} is not a rosbag2 bag: {why}')
        problems = []
        for file in files:
            try:
                self._storages.append(self._storage(file))
            except BagError as error:
                problems.append(str(error))
        if not self._storages:
            raise BagError('; '.join(problems))
        self._damaged(*problems)

    def _storage(self, path: Path) -> Any:
        """Opened storage of one file, unfinished ones included. Raises BagError."""
        from rosbags.rosbag2.storage_mcap import McapReader
        from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

        kinds = {'.mcap': McapReader, '.db3': Sqlite3Reader}
        if path.suffix.lower() not in kinds:
            raise BagError(f'{shown(path)} is not a rosbag2 bag: expected a folder, .mcap or .db3')
        storage: Any = kinds[path.suffix.lower()](path)
        try:
            storage.open()
        except Exception as error:  # every storage plugin has its own exceptions
            storage = UnfinishedMcap(path)
            if path.suffix.lower() == '.mcap':
                storage.open()
            if not storage.connections:
                what = storage.damage or str(error)
                raise BagError(f'{shown(path)} cannot be read: {what}') from error
            if storage.damage:
                left = sum(c.msgcount for c in storage.connections)
                text = f'bag is cut off: {storage.damage}; the {left} messages before it count'
                self._damaged(text)
        return storage

    def _compare_with_promise(self) -> None:
        if self._reader is None:
            return
        have, promised = _counts(self.connections), _counts(self._reader.connections)
        for topic, count in promised.items():
            if count > have[topic]:
                self._damaged(
                    f'metadata.yaml promises {count} messages on {topic}, {have[topic]} are there'
                )

    def _damaged(self, *texts: str) -> None:
        # A cut file says more than the metadata that does not fit it.
        kept = [t for t in (self.damage, *texts) if t]
        self.damage = '; '.join(sorted(kept, key=lambda t: 'cut off' not in t))


def _counts(connections: list[Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for c in connections:
        found[c.topic] += c.msgcount
    return found


def topics(path: str | Path) -> list[Topic]:
    """Topics of a bag, sorted by name. Raises BagError as :class:`Bag`."""
    with Bag(path) as reader:
        return sorted(
            (Topic(c.topic, c.msgtype, c.msgcount) for c in reader.connections),
            key=lambda topic: topic.name,
        )


def image_topic(path: str | Path, wanted: str = '') -> str:
    """
    Topic of a bag's images.

    Args:
        wanted: its name; '' = the only one that there is, depth images left aside.

    Raises:
        BagError: there is none, or several to choose from; the text names them.
    """
    there = [t for t in topics(path) if t.type in IMAGE_TYPES]
    if wanted:
        names = [t.name for t in there]
        if wanted in names:
            return wanted
        raise BagError(f'{shown(path)} has no image topic {wanted!r}; it has {_listed(names)}')
    names = [t.name for t in there if t.count and 'depth' not in t.name.lower()]
    names = [n for n in names if not n.startswith('/labels/')] or names
    if not names:
        have = _listed([f'{t.name} ({t.count})' for t in topics(path)])
        raise BagError(f'{shown(path)} has no images; it has {have}')
    if len(names) != 1:
        raise BagError(f'{shown(path)}: choose --topic from {_listed(names)}')
    return names[0]


def read_topic(
    path: str | Path, topic: str, problem: Callable[[str], None] | None = None
) -> Iterator[tuple[int, Any]]:
    """
    Messages of one topic in the order they were written.

    Args:
        problem: is told of messages that make no sense, which are left out, and of where the bag
            stops being readable; None makes errors of them.

    Yields:
        The time in ns at which it was recorded, and the message with numpy arrays for its data.

    Raises:
        BagError: no such bag or topic; the text names the topics there are.
    """
    with Bag(path) as reader:
        chosen = [c for c in reader.connections if c.topic == topic]
        if not chosen:
            names = _listed(sorted(c.topic for c in reader.connections))
            raise BagError(f'{shown(path)} has no topic {topic!r}; it has {names}')
        store = typestore()
        try:
            for connection, stamp, raw in reader.messages(connections=chosen):
                try:
                    message = deserialized(store, connection, raw)
                except BagError as error:
                    if problem is None:
                        raise
                    problem(str(error))
                    continue
                yield stamp, message
        except BagError as error:
            if problem is None:
                raise
            problem(str(error))


def deserialized(store: Typestore, connection: Any, raw: bytes) -> Any:
    """Message of its CDR bytes. Raises BagError where they make no sense."""
    try:
        return store.deserialize_cdr(raw, connection.msgtype)
    except Exception as error:  # of rosbags, struct and numpy
        raise BagError(f'a message cannot be read: {error}') from error


def _plain(raw: Any) -> Any:
    """Message without the zstd that compression by message puts around it."""
    if bytes(raw[:4]) == b'\x28\xb5\x2f\xfd':  # CDR begins with 0x00
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(bytes(raw))
    return raw


def _listed(names: list[str]) -> str:
    return ', '.join(names) or 'none'
