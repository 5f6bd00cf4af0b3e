# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
What is left of an mcap file that was cut off: by a full disk, a lost battery, a killed recorder.

The index of an mcap file stands at its end, so ordinary readers refuse a file without it; here the
package mcap reads its records from the beginning up to the cut.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

MAGIC = b'\x89MCAP0\r\n'
CHUNK_HEADER = 8 + 8 + 8 + 4
"""Bytes of a chunk before the name of its compression (https://mcap.dev/spec)."""

NOT_LESS = (1 << 63) - 1


class UnfinishedMcap:
    """Reader with the methods of rosbags' storages that this package uses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[Any] = []  # as of rosbags, with the messages that are left
        self.start_time, self.end_time = NOT_LESS, 0  # of the first message, after the last, ns
        self.damage = ''  # where the file ends; '' where nothing is missing

    def open(self) -> None:
        """Read the file once, to count. Raises OSError."""
        from rosbags.interfaces import (
            Connection,
            ConnectionExtRosbag2,
            MessageDefinition,
            MessageDefinitionFormat,
        )

        counts: Counter[int] = Counter()
        channels: dict[int, tuple[str, str]] = {}
        for channel, stamp, _ in self._records(channels):
            counts[channel] += 1
            self.start_time = min(self.start_time, stamp)
            self.end_time = max(self.end_time, stamp + 1)
        none = MessageDefinition(MessageDefinitionFormat.NONE, '')
        ext = ConnectionExtRosbag2('cdr', [])
        self.connections = [
            Connection(number, topic, kind, none, '', counts[number], ext, self)
            for number, (topic, kind) in channels.items()
        ]

    def close(self) -> None:
        """Nothing is kept open."""

    def messages(
        self, connections: Collection[Any], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Any, int, bytes]]:
        """Yield (connection, time of the record in ns, CDR bytes) up to the cut."""
        chosen = {c.id: c for c in connections}
        first, end = start or 0, NOT_LESS if stop is None else stop
        for channel, stamp, raw in self._records({}):
            if channel in chosen and first <= stamp < end:
                yield chosen[channel], stamp, raw

    def _records(self, channels: dict[int, tuple[str, str]]) -> Iterator[tuple[int, int, bytes]]:
        """Yield (channel, time in ns, bytes); `channels` is filled with (topic, type)."""
        from mcap.exceptions import McapError
        from mcap.records import Channel, Chunk, DataEnd, Message, Schema
        from mcap.stream_reader import StreamReader, breakup_chunk

        schemas: dict[int, str] = {}

        def messages(records: Any) -> list[tuple[int, int, bytes]]:
            found = []
            for record in records:
                if isinstance(record, Schema):
                    schemas[record.id] = record.name
                elif isinstance(record, Channel) and record.message_encoding in ('cdr', ''):
                    channels[record.id] = record.topic, schemas.get(record.schema_id, '')
                elif isinstance(record, Message) and record.channel_id in channels:
                    found.append((record.channel_id, record.log_time, record.data))
            return sorted(found, key=lambda m: m[1])

        with self.path.open('rb') as file:
            size = self.path.stat().st_size
            at = len(MAGIC)
            try:
                for record in StreamReader(file, emit_chunks=True).records:
                    if isinstance(record, DataEnd):
                        return
                    inner = breakup_chunk(record) if isinstance(record, Chunk) else [record]
                    yield from messages(inner)
                    at = file.tell()
            except (McapError, ValueError, RuntimeError, KeyError, EOFError, MemoryError) as error:
                how = f'ends at byte {size}' if at < size else 'has no end'
                if 'magic' in str(error):
                    how = 'is no mcap file'
                self.damage = f'{self.path.name} {how}'
                file.seek(at)
                yield from messages(_of_cut_chunk(file.read()))
                return
            except Exception as error:  # zstd and lz4 have exceptions of their own
                self.damage = f'{self.path.name} makes no sense after byte {at}: {error}'
                return
        self.damage = f'{self.path.name} ends at byte {size}'


def _of_cut_chunk(data: bytes) -> Iterator[Any]:
    """Whole records of a chunk whose own end may be missing."""
    from mcap.exceptions import McapError
    from mcap.opcode import Opcode
    from mcap.stream_reader import StreamReader

    if len(data) < 9 + CHUNK_HEADER + 4 or data[0] != Opcode.CHUNK:
        return
    body = data[9 : 9 + int.from_bytes(data[1:9], 'little')]
    length = int.from_bytes(body[CHUNK_HEADER : CHUNK_HEADER + 4], 'little')
    begin = CHUNK_HEADER + 4 + length
    compression = body[CHUNK_HEADER + 4 : begin].decode('ascii', 'replace')
    try:
        plain = _unpacked(body[begin + 8 :], compression)
        yield from StreamReader(io.BytesIO(plain), skip_magic=True).records
    except (McapError, ValueError, RuntimeError, EOFError):
        return


def _unpacked(data: bytes, compression: str) -> bytes:
    """As much as can be unpacked of data whose end may be missing."""
    if compression == 'lz4':
        from lz4.frame import LZ4FrameDecompressor

        return bytes(LZ4FrameDecompressor().decompress(data))
    if compression == 'zstd':
        import zstandard

        try:
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    return data
