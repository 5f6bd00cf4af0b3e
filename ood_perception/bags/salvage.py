# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What is left of an mcap bag that was cut off: by a full disk, a lost battery, a killed recorder.

An mcap file is a sequence of records, each with its length before it; its index stands at the end,
so ordinary readers refuse a file without its end. Here the records are read from the beginning up
to the cut. Format: https://mcap.dev/spec (records Schema 3, Channel 4, Message 5, Chunk 6).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

MAGIC = b'\x89MCAP0\r\n'
SCHEMA, CHANNEL, MESSAGE, CHUNK, FOOTER, DATA_END = 3, 4, 5, 6, 2, 15

Message = tuple[int, int, bytes]
"""Channel, time of the record in ns, CDR bytes."""


class Broken(ValueError):
    """The bytes end, or make no sense, at some offset; the text says which."""


class Channel(NamedTuple):
    """A topic of a file and the type of its messages."""

    topic: str
    type: str


class SalvageReader:
    """
    Reader with the methods of rosbags' own that this package uses, for damaged mcap files.

    Args:
        path: a .mcap file, or a bag's folder.

    Attributes:
        connections: topics as rosbags' connections, with the messages that are left.
        start_time: of the first message left, ns.
        end_time: after the last message left, ns.
        damage: where the files end; '' where nothing is missing.

    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.connections: list[Any] = []
        self.start_time, self.end_time, self.damage = (1 << 63) - 1, 0, ''

    @staticmethod
    def files(path: Path) -> list[Path]:
        """Files of a bag, in the order in which they were recorded: x_2.mcap before x_10.mcap."""
        if path.is_dir():
            return sorted(path.glob('*.mcap'), key=lambda p: (len(p.name), p.name))
        return [path] if path.suffix == '.mcap' else []

    def open(self) -> None:
        """Read all files once, to count. Raises OSError."""
        from rosbags.interfaces import (
            Connection,
            ConnectionExtRosbag2,
            MessageDefinition,
            MessageDefinitionFormat,
        )

        counts: Counter[Channel] = Counter()
        cuts = []
        for file in self.files(self.path):
            channels: dict[int, Channel] = {}
            try:
                for channel, stamp, _ in records(file, channels):
                    counts[channels[channel]] += 1
                    self.start_time = min(self.start_time, stamp)
                    self.end_time = max(self.end_time, stamp + 1)
            except Broken as error:
                cuts.append(f'{file.name} {error}')
            for known in channels.values():
                counts[known] += 0
        self.connections = [
            Connection(
                number,
                channel.topic,
                channel.type,
                MessageDefinition(MessageDefinitionFormat.NONE, ''),
                '',
                count,
                ConnectionExtRosbag2('cdr', []),
                self,
            )
            for number, (channel, count) in enumerate(counts.items(), 1)
        ]
        left = sum(counts.values())
        if cuts:
            self.damage = f'bag is cut off: {"; ".join(cuts)}; the {left} messages before it count'

    def close(self) -> None:
        """Nothing is kept open."""

    def messages(
        self, connections: Collection[Any] = (), start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Any, int, bytes]]:
        """
        Messages up to the cut.

        Args:
            connections: to be read, empty for all.
            start: first time in ns.
            stop: end of the times in ns.

        Yields:
            Connection, time of the record in ns, CDR bytes.

        """
        chosen = {Channel(c.topic, c.msgtype): c for c in connections or self.connections}
        first, end = start or 0, (1 << 63) - 1 if stop is None else stop
        for file in self.files(self.path):
            channels: dict[int, Channel] = {}
            try:
                for channel, stamp, raw in records(file, channels):
                    connection = chosen.get(channels[channel])
                    if connection is not None and first <= stamp < end:
                        yield connection, stamp, raw
            except Broken:
                continue


def records(path: Path, channels: dict[int, Channel]) -> Iterator[Message]:
    """
    Messages of a file, those of a chunk in the order of their times.

    Args:
        path: of the file.
        channels: is filled with what the file declares.

    Raises:
        Broken: the file ends before its end, or is no mcap file; after all messages before that.

    """
    schemas: dict[int, str] = {}
    with path.open('rb') as file:
        size = path.stat().st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise Broken('is no mcap file')
        while True:
            at = file.tell()
            head = file.read(9)
            if len(head) < 9:
                raise Broken(f'ends at byte {size}')
            kind, length = head[0], int.from_bytes(head[1:], 'little')
            if kind in (FOOTER, DATA_END):
                return
            if kind not in (SCHEMA, CHANNEL, MESSAGE, CHUNK):
                if at + 9 + length > size:
                    raise Broken(f'ends at byte {size}')
                file.seek(length, 1)
                continue
            body = file.read(min(length, size - at - 9))
            cut = len(body) < length
            try:
                if kind == CHUNK:
                    yield from sorted(_chunk(body, schemas, channels), key=lambda m: m[1])
                elif not cut:
                    message = _record(kind, body, schemas, channels)
                    if message is not None:
                        yield message
            except (struct.error, UnicodeDecodeError, KeyError, RuntimeError, EOFError) as error:
                if not cut:
                    raise Broken(f'makes no sense at byte {at}: {error}') from error
            if cut:
                raise Broken(f'ends at byte {size}')


def _chunk(body: bytes, schemas: dict[int, str], channels: dict[int, Channel]) -> list[Message]:
    """Whole messages of a chunk, even where the chunk itself is not whole."""
    at = 28
    length = struct.unpack_from('<I', body, at)[0]
    compression = body[at + 4 : at + 4 + length].decode()
    data = _unpacked(body[at + 4 + length + 8 :], compression)
    found, at = [], 0
    while at + 9 <= len(data):
        kind, length = struct.unpack_from('<BQ', data, at)
        at += 9
        if at + length > len(data):
            break
        message = _record(kind, data[at : at + length], schemas, channels)
        if message is not None:
            found.append(message)
        at += length
    return found


def _unpacked(data: bytes, compression: str) -> bytes:
    """As much as can be unpacked of data whose end may be missing."""
    if compression == '':
        return data
    if compression == 'lz4':
        from lz4.frame import LZ4FrameDecompressor

        return bytes(LZ4FrameDecompressor().decompress(data))
    if compression == 'zstd':
        import sys

        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        try:
            return bytes(zstd.ZstdDecompressor().decompress(data))
        except zstd.ZstdError as error:
            raise RuntimeError(str(error)) from error
    raise RuntimeError(f'compression {compression!r}')


def _record(
    kind: int, body: bytes, schemas: dict[int, str], channels: dict[int, Channel]
) -> Message | None:
    if kind == SCHEMA:
        (number,) = struct.unpack_from('<H', body)
        schemas[number] = _text(body, 2)[0]
    elif kind == CHANNEL:
        number, schema = struct.unpack_from('<HH', body)
        channels[number] = Channel(_text(body, 4)[0], schemas.get(schema, ''))
    elif kind == MESSAGE:
        number, _, stamp, _ = struct.unpack_from('<HIQQ', body)
        if number not in channels:
            raise KeyError(f'channel {number}')
        return number, stamp, body[22:]
    return None


def _text(body: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from('<I', body, at)
    return body[at + 4 : at + 4 + length].decode(), at + 4 + length
