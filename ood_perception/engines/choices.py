# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What is kept between two starts: measured choices and converted networks."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import platform
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from ood_perception.engines.base import Shape
from ood_perception.host_cpu import cpuinfo

log = logging.getLogger(__name__)

VARIABLE = 'OOD_ENGINE_CACHE'  # environment variable that names the folder
# beginnings of names -> files of these that the folder holds; the oldest go first
MOST = {('network-', 'choice-'): 48, ('tensorrt-',): 16}

RUNTIMES = ('torch', 'openvino', 'onnxruntime', 'torch-tensorrt')


def cache_folder() -> Path:
    """$OOD_ENGINE_CACHE, or ood_perception/engines in $XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    try:
        return Path(base).expanduser() / 'ood_perception' / 'engines'
    except RuntimeError:  # no home directory
        return Path(tempfile.gettempdir()) / f'ood_perception-{os.getuid()}' / 'engines'


def network_key(model: nn.Module) -> str:
    """Name of a network, 64 digits: of its class, its weights and the code of the models."""
    digest = hashlib.sha256(f'{type(model).__qualname__} {_code()}'.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f'{name} {tuple(tensor.shape)} {tensor.dtype}'.encode())
        data = tensor.detach().contiguous().flatten().view(torch.uint8)
        digest.update(data.cpu().numpy())
    return digest.hexdigest()


@functools.cache
def _code() -> str:
    """Hash of the source of models and masks, from which networks are converted."""
    digest, package = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted([*package.glob('models/*.py'), *package.glob('masks/*.py')]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def versions() -> str:
    """Versions of the runtimes that are installed."""
    found = []
    for name in RUNTIMES:
        try:
            found.append(f'{name} {metadata.version(name)}')
        except metadata.PackageNotFoundError:
            continue
    return ', '.join(found)


def processor() -> str:
    """Model and instruction sets of this CPU, and what the environment leaves of them."""
    model = cpuinfo('model name') or platform.processor() or platform.machine()
    flags = hashlib.sha256((cpuinfo('flags') or cpuinfo('Features')).encode()).hexdigest()[:16]
    return f'{model} {flags} {os.environ.get("ONEDNN_MAX_CPU_ISA", "")} {os.cpu_count()}'


class Choices:
    """
    Measured choices of an engine, one JSON file each, for a name that says all but the shape.

    Nothing here ever raises: what cannot be read or written costs a measurement and one line.
    """

    def __init__(self, name: str) -> None:
        self._name, self._folder = name, cache_folder()

    def read(self, shape: Shape) -> dict[str, float] | None:
        """Milliseconds by engine that were measured at this shape, or None."""
        path = self._path(shape)
        try:
            data = json.loads(path.read_text(encoding='utf-8'))
            if data['for'] != self._about(shape):
                raise ValueError('it is for something else')
            times = {str(name): float(t) for name, t in data['milliseconds'].items()}
            if not times or not all(0 < t < math.inf for t in times.values()):
                raise ValueError('its times are not positive numbers')
        except FileNotFoundError:
            return None
        except Exception as error:
            log.warning('%s cannot be used (%s); measuring the engines again', path, error)
            return None
        return times

    def write(self, shape: Shape, times: Mapping[str, float]) -> None:
        """Keep what was measured."""
        data = {'for': self._about(shape), 'milliseconds': dict(times)}
        keep(self._path(shape), json.dumps(data, indent=2).encode())

    def _about(self, shape: Shape) -> str:
        return f'{self._name}; shape {tuple(shape)}'

    def _path(self, shape: Shape) -> Path:
        digest = hashlib.sha256(self._about(shape).encode()).hexdigest()
        return self._folder / f'choice-{digest[:32]}.json'


def keep(path: Path, data: bytes) -> None:
    """
    Write a file at once, so that another process sees all of it or nothing, and delete old ones.

    Where it cannot be written, one line says so, once for each folder.
    """
    partial = path.with_name(f'{path.name}.{os.getpid()}')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
        delete_old(path.parent)
    except OSError as error:
        _cannot_keep(path.parent, str(error.strerror or error))
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def delete_old(folder: Path) -> None:
    """Delete the oldest files beyond `MOST`; an OSError where that is not allowed."""
    for beginnings, most in MOST.items():
        kept = [path for path in folder.iterdir() if path.name.startswith(beginnings)]
        for old in sorted(kept, key=lambda path: path.stat().st_mtime)[:-most]:
            old.unlink(missing_ok=True)


@functools.cache
def _cannot_keep(folder: Path, reason: str) -> None:
    log.warning(
        f'{folder} cannot be written ({reason}): each start converts and measures again; '
        f'set {VARIABLE} to a folder that can be'
    )
