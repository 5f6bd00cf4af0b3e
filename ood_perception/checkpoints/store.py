# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Where weight files live: in the package, at a path, or in the cache folder by catalogue name.

Nothing here touches the network; `checkpoints.fetching` does, when a person asks for it.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


class CheckpointError(ValueError):
    """
    A checkpoint cannot be used; the message is one line that says why and what to do.

    Attributes:
        report: the `loading.LoadReport`, None where the file could not even be read.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class WeightsMissing(FileNotFoundError, ValueError):
    """A weight file is not on this machine; the message says which command gets it."""


PACKAGE_FOLDER = Path(__file__).resolve().parent.parent / 'weights'
"""Files shipped with the package, named `package:FILE` in profiles."""

SUFFIXES = ('.pth', '.pt', '.ckpt', '.bin', '.safetensors')


@dataclass(frozen=True)
class Entry:
    """One official weight file."""

    name: str  # what `ood weights fetch` and profiles call it
    file: str  # name of the file in the cache, as released where that is known
    origin: str  # key of `checkpoints.origins.ORIGINS`
    licence: str  # of the weights, and what restricts them
    purpose: str  # one line for people
    url: str = ''  # direct address of the file, '' where a person has to fetch it from `page`
    page: str = ''  # where a person finds it
    model: str = ''  # name for `models.create_model`, '' for models of other libraries
    # arguments of `create_model` that this file needs
    options: dict[str, Any] = field(default_factory=dict)
    megabytes: int = 0  # roughly, from the number of values; files with training state are larger
    sha256: str = ''  # of the file where the publisher states it, else ''
    sha256_prefix: str = ''  # first hex digits, where only those are published
    published: str = ''  # numbers that the publisher reports for it


@functools.cache
def catalogue() -> dict[str, Entry]:
    """Every known file by name, in the order of catalogue.yaml."""
    text = (Path(__file__).parent / 'catalogue.yaml').read_text(encoding='utf-8')
    return {name: Entry(name=name, **values) for name, values in yaml.safe_load(text).items()}


def find_entry(name: str, others: Iterable[str] = ()) -> Entry:
    """Catalogue entry by name. Raises WeightsMissing naming the closest one, also of `others`."""
    entries = catalogue()
    if name not in entries:
        close = difflib.get_close_matches(name, [*others, *entries], n=1)
        hint = f'did you mean {close[0]!r}? ' if close else ''
        raise WeightsMissing(f'no weights named {name!r}; {hint}see `ood weights list`')
    return entries[name]


def cache_folder() -> Path:
    """Folder of fetched files: $OOD_WEIGHTS, else ~/.cache/ood_perception."""
    chosen = os.environ.get('OOD_WEIGHTS')
    return Path(chosen).expanduser() if chosen else Path.home() / '.cache' / 'ood_perception'


def cached_path(entry: Entry) -> Path | None:
    """Path of an entry's file in the cache, a converted one first; None if it is not there."""
    paths = (cache_folder() / name for name in (f'{entry.name}.safetensors', entry.file))
    return next(filter(Path.is_file, paths), None)


def resolve(reference: str | Path) -> Path:
    """
    Find the file that a profile's `weights` names.

    Args:
        reference: `package:FILE` for a shipped file, a path, or a name of the catalogue.

    Raises:
        WeightsMissing: it is not on this machine; the message says which command gets it.
    """
    text = str(reference)
    if text.startswith('package:'):
        path = PACKAGE_FOLDER / text.removeprefix('package:')
        if not path.is_file():
            raise WeightsMissing(f'{text} is not in this installation ({path}); reinstall it')
        return path
    if not text:
        raise WeightsMissing('no weights named; see `ood weights list`')
    if os.sep in text or text.endswith(SUFFIXES):
        path = Path(text).expanduser()
        if not path.is_file():
            raise WeightsMissing(f'no weight file at {path}; see `ood weights list`')
        return path
    entry = find_entry(text)
    found = cached_path(entry)
    if found is None:
        raise WeightsMissing(
            f'weights {text!r} are not in {cache_folder()}: run `ood weights fetch {text}`'
        )
    return found


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def wrong_sha256(entry: Entry, path: Path) -> str:
    """One line saying how a file's sha256 differs from the published one, '' where it fits."""
    expected = entry.sha256 or entry.sha256_prefix
    if not expected:
        return ''
    actual = sha256_of(path)
    if actual.startswith(expected):
        return ''
    return f'{path}: its sha256 is {actual}, expected {expected}; the file is damaged or another'
