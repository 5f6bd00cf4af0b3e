# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Bring weight files to the cache: from their publishers, or from a folder for offline robots."""

from __future__ import annotations

import errno
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ood_perception.checkpoints.reading import check_kind
from ood_perception.checkpoints.store import (
    CheckpointError,
    Entry,
    WeightsMissing,
    cache_folder,
    wrong_sha256,
)

BLOCK = 1 << 20
TIMEOUT_S = 60.0

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes of the whole file (0 if unknown)."""


def fetch(
    entry: Entry, source: str | Path | None = None, progress: Progress = lambda done, total: None
) -> Path:
    """
    Bring one file of the catalogue to the cache, whole and checked, or leave the cache as it was.

    A download that was interrupted goes on where it stopped, if the server can do that.

    Args:
        source: a folder that has the file under its released name, or the file itself; None
            downloads it.
        progress: told how far it is.

    Raises:
        WeightsMissing: `source` has no such file, or there is no address to download from.
        CheckpointError: no disk space, no connection, a wrong sha256, an HTML page.
    """
    target = cache_folder() / entry.file
    if target.is_file() and not wrong_sha256(entry, target):
        return target
    part = target.with_name(target.name + '.part')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source is not None:
            _copy(entry, Path(source).expanduser(), part, progress)
        else:
            _download(entry, part, progress)
    except OSError as error:
        if isinstance(error, (CheckpointError, WeightsMissing)):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(target.parent).free >> 20
            raise CheckpointError(
                f'{entry.name}: no space in {target.parent} ({free} MB free); make room or set '
                f'OOD_WEIGHTS to a folder on another disk'
            ) from error
        raise CheckpointError(f'{entry.name}: cannot fetch to {target}: {error}') from error
    try:
        with part.open('rb') as file:
            check_kind(part, file.read(512))
        if wrong := wrong_sha256(entry, part):
            raise CheckpointError(f'{entry.name}: {wrong}; it was deleted, fetch it again')
    except CheckpointError:
        part.unlink(missing_ok=True)
        raise
    part.replace(target)
    return target


def _copy(entry: Entry, source: Path, part: Path, progress: Progress) -> None:
    path = source / entry.file if source.is_dir() else source
    if not path.is_file():
        raise WeightsMissing(f'{entry.name}: no file at {path} (the file is named {entry.file})')
    total = path.stat().st_size
    _need_space(part, total)
    with path.open('rb') as file, part.open('wb') as out:
        _pump(file, out, 0, total, progress)


def _download(entry: Entry, part: Path, progress: Progress) -> None:
    if not entry.url:
        raise WeightsMissing(
            f'{entry.name}: no direct address; download it by hand from {entry.page} and run '
            f'`ood weights fetch {entry.name} --from FILE`'
        )
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(entry.url, headers={'User-Agent': 'ood_perception'})
    if have:
        request.add_header('Range', f'bytes={have}-')
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            resumed = reply.status == 206
            have = have if resumed else 0
            total = have + int(reply.headers.get('Content-Length') or 0)
            if 'text/html' in reply.headers.get('Content-Type', ''):
                raise CheckpointError(
                    f'{entry.name}: {entry.url} answers with an HTML page, not with the file; '
                    f'see {entry.page or entry.url}'
                )
            _need_space(part, total - have)
            with part.open('ab' if resumed else 'wb') as out:
                _pump(reply, out, have, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # what is here is as long as the file or longer
            part.unlink()
            return _download(entry, part, progress)
        raise CheckpointError(
            f'{entry.name}: {entry.url} answers {error.code} {error.reason}; '
            f'see {entry.page or "the publisher"}'
        ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, 'reason', error)
        raise CheckpointError(
            f'{entry.name}: no connection to {entry.url} ({reason}); what came is kept, run the '
            f'command again or use --from FOLDER'
        ) from error
    if total and part.stat().st_size < total:
        raise CheckpointError(
            f'{entry.name}: the connection ended after {part.stat().st_size} of {total} bytes; '
            f'run the command again to go on'
        )
    return None


def _pump(source: Any, out: BinaryIO, done: int, total: int, progress: Progress) -> None:
    progress(done, total)
    while block := source.read(BLOCK):
        out.write(block)
        done += len(block)
        progress(done, total)


def _need_space(part: Path, size: int) -> None:
    if size > shutil.disk_usage(part.parent).free:
        raise OSError(errno.ENOSPC, 'no space left on device', str(part))
