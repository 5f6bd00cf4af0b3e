# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Read checkpoint files as data: tensors come out, no code of the file ever runs.

A pickle can name any function to be called while it is read. Here only the few names that tensors
are made of are resolved; names of known training frameworks (hyper-parameters, callbacks, numpy
objects) become inert records that are thrown away; any other name is an error.
"""

from __future__ import annotations

import collections
import logging
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ood_perception.checkpoints.store import SUFFIXES, CheckpointError, WeightsMissing

log = logging.getLogger(__name__)

WRAPPERS = (
    'state_dict',
    'model_state_dict',
    'model',
    'ema',
    'model_ema',
    'params_ema',
    'teacher',
    'params',
    'net',
)
"""Keys under which training frameworks keep the tensors, preferred in this order."""

DEPTH = 3  # levels of nested dicts that are searched for tensors

MOST = 5
"""The weights have so many times the tensors of any other dict of a file, where no name tells."""


class IgnoredObject(dict[Any, Any]):
    """Takes the place of an object of a training framework: runs nothing, is thrown away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Drop the state."""

    def append(self, item: Any) -> None:
        """Drop an item that the pickle adds to a list-like object."""

    def extend(self, items: Any) -> None:
        """Drop items that the pickle adds to a list-like object."""


# Functions instead of classes where possible: a pickle can set attributes of what it is given.
_ALLOWED: dict[tuple[str, str], Any] = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('collections', 'defaultdict'): lambda *_: {},
    ('_codecs', 'encode'): lambda text, *_: text.encode('latin1'),
    ('copyreg', '_reconstructor'): lambda *_: IgnoredObject(),
    ('copy_reg', '_reconstructor'): lambda *_: IgnoredObject(),
    ('easydict', 'EasyDict'): IgnoredObject,
    ('torch', 'Size'): torch.Size,
    ('torch', 'device'): torch.device,
    ('torch._utils', '_rebuild_tensor'): torch._utils._rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    ('torch._utils', '_rebuild_parameter'): lambda data, *_: data,
    ('torch.nn.parameter', 'Parameter'): lambda data, *_: data,
    ('numpy', 'ndarray'): np.ndarray,
    ('numpy', 'dtype'): np.dtype,
    **{('builtins', kind.__name__): kind for kind in (dict, list, tuple, set, frozenset)},
    **{('builtins', kind.__name__): kind for kind in (int, float, bool, str, complex, slice)},
    **{('builtins', kind.__name__): kind for kind in (bytearray, object)},
    **{
        (module, name): function
        for module in ('numpy.core.multiarray', 'numpy._core.multiarray')
        for name, function in (
            ('_reconstruct', np.zeros(0).__reduce__()[0]),
            ('scalar', np.float64(0).__reduce__()[0]),
        )
    },
}

_INERT = (
    'argparse',
    'datetime',
    'detectron2',
    'fvcore',
    'iopath',
    'lightning',
    'lightning_fabric',
    'lightning_utilities',
    'mmcv',
    'mmengine',
    'mmseg',
    'omegaconf',
    'pathlib',
    'pytorch_lightning',
    'torchmetrics',
    'yacs',
)
"""Modules whose objects are known bystanders of weights; they are never imported."""


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickler that resolves only the names above. Raises UnpicklingError for any other."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for `module.name`."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in ('torch', 'torch.storage', 'torch.cuda') and name.endswith('Storage'):
            return super().find_class(module, name)
        kind = getattr(np, name, None)
        if module == 'numpy' and isinstance(kind, type) and issubclass(kind, np.generic):
            return kind
        if module == 'numpy.dtypes' and isinstance(getattr(np.dtypes, name, None), type):
            return getattr(np.dtypes, name)
        if module.split('.')[0] in _INERT:
            return IgnoredObject
        raise pickle.UnpicklingError(
            f'it names {module}.{name}, which is not data (of a model, save its state_dict())'
        )


_RESTRICTED_PICKLE = SimpleNamespace(
    Unpickler=RestrictedUnpickler,
    load=lambda file, **options: RestrictedUnpickler(file, **options).load(),
    __name__='restricted',
)


_BROKEN = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError,
    AttributeError, IndexError, ImportError, MemoryError,
)  # fmt: skip
"""What torch and pickle raise for a file that is damaged or no checkpoint."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """
    Read the tensors of a weight file, on the CPU, without running anything in it.

    Args:
        path: a PyTorch file (zip or legacy), a Lightning .ckpt, or .safetensors.

    Returns:
        official key -> tensor, from under the file's 'state_dict' or 'model' if it has one.

    Raises:
        WeightsMissing: no such file.
        CheckpointError: truncated, not a checkpoint, or with something in it that is not data.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in SUFFIXES)[:3]
        text = f'it has {", ".join(inside)}' if inside else 'no weight file is in it'
        raise CheckpointError(f'{path}: a folder, name the file ({text})')
    if not path.is_file():
        raise WeightsMissing(f'no weight file at {path}; see `ood weights list` and `fetch`')
    with path.open('rb') as file:
        head = file.read(512)
    check_kind(path, head)
    named = path.suffix == '.safetensors'
    if named and head.startswith((b'PK', b'\x80')) and not _is_safetensors(head):
        raise CheckpointError(f'{path}: a file of torch.save, not safetensors; name it .pth')
    if named or _is_safetensors(head):
        return _read_safetensors(path)
    return tensors_of(_read_pickled(path), str(path))


def tensors_of(tree: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """
    Find the dict of tensors in what a checkpoint holds, at most three levels deep.

    Raises:
        CheckpointError: there are none, or several dicts of which none is a known one.
    """
    groups = dict(_groups(tree, ''))
    if not groups:
        raise CheckpointError(f'{name}: {_nothing_in(tree)}')
    path = _preferred(groups, name)
    if others := [other for other in groups if other != path]:
        log.info('%s: took the tensors under %r, not %s', name, path, ', '.join(others))
    found = groups[path]
    if all(key.startswith('module.') for key in found):  # saved from DataParallel
        found = {key.removeprefix('module.'): value for key, value in found.items()}
    return found


def _groups(tree: Any, path: str, depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every dict of tensors with the path of keys that leads to it, but optimizers'."""
    if not isinstance(tree, Mapping) or depth > DEPTH:
        return
    found = {}
    for key, value in tree.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in 'fiub':
            value = torch.from_numpy(value)
        if isinstance(value, Tensor) and isinstance(key, str):
            found[key] = value.detach()
        elif isinstance(key, str) and not key.startswith('optim'):
            yield from _groups(value, f'{path}.{key}' if path else key, depth + 1)
    if found:
        yield path, found


def _preferred(groups: dict[str, dict[str, Tensor]], name: str) -> str:
    """Tell which of several dicts holds the weights: a known name, or most of the tensors."""
    for wrapper in WRAPPERS:
        for path in groups:
            if wrapper in path.split('.'):
                return path
    first, *rest = sorted(groups, key=lambda path: -len(groups[path]))
    if rest and len(groups[rest[0]]) * MOST > len(groups[first]):
        raise CheckpointError(
            f'{name}: several dicts of tensors, {", ".join(groups)}; save the one that is meant'
        )
    return first


def _nothing_in(tree: Any) -> str:
    if isinstance(tree, Mapping) and tree:
        keys = ', '.join(map(str, list(tree)[:5]))
        return f'no tensors in it, so it is not a checkpoint; its keys are {keys}'
    return f'no tensors in it, so it is not a checkpoint (a {type(tree).__name__})'


def check_kind(path: Path, head: bytes) -> None:
    """Raise CheckpointError if the first bytes of a file are those of something else."""
    text = head.lstrip(b'\xef\xbb\xbf \t\r\n')[:64].lower()
    if not head:
        raise CheckpointError(f'{path}: the file is empty; fetch it again')
    if not head.strip(b'\0'):
        raise CheckpointError(f'{path}: zeros, not a checkpoint; fetch it again')
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head', b'<!--')):
        raise CheckpointError(
            f'{path}: an HTML page saved under the name of a checkpoint '
            f'(a login or confirmation page); download the file itself'
        )
    if text.startswith(b'version https://git-lfs'):
        raise CheckpointError(
            f'{path}: a Git LFS pointer, not the file it points to; run git lfs pull'
        )
    if text.startswith((b'{', b'[')) and not _is_safetensors(head):
        raise CheckpointError(f'{path}: text (JSON), not weights; name the file that holds them')
    for magic, what in FOREIGN.items():
        if head.startswith(magic, TAR if magic == b'ustar' else 0):
            raise CheckpointError(f'{path}: {what}, not a file of PyTorch weights')
    if head.startswith(b'PK') and zipfile.is_zipfile(path):
        _check_archive(path)


FOREIGN = {
    b'\x89HDF': 'an HDF5 file (Keras)',
    b'GGUF': 'a GGUF file',
    b'\x93NUMPY': 'a numpy array',
    b'\x1f\x8b': 'a gzip archive; unpack it first',
    b'7z\xbc\xaf': 'a 7z archive; unpack it first',
    b'ustar': 'a tar archive; unpack it first',
    b'\x08\x03\x12': 'an ONNX network',
    **{bytes([8, version, 18]): 'an ONNX network' for version in range(7, 11)},
}
"""First bytes of files that people mistake for weights -> what they are."""

TAR = 257  # offset of a tar archive's first bytes that say so


def _check_archive(path: Path) -> None:
    """Raise CheckpointError for zip archives that hold no state dict."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inner = [name.split('/', 1)[-1] for name in names]
    if any(name.startswith('code/') for name in inner) or 'constants.pkl' in inner:
        raise CheckpointError(
            f'{path}: a TorchScript archive, which holds code; make weights of it where it is '
            f"trusted: torch.save(torch.jit.load('{path.name}').state_dict(), 'weights.pth')"
        )
    if any(name.endswith('.json') and 'model' in name for name in inner) and not any(
        name == 'data.pkl' for name in inner
    ):
        raise CheckpointError(
            f'{path}: a program of torch.export (.pt2) or a model archive, not weights; '
            f'save the state_dict() of the model instead'
        )
    if inner and all(name.endswith('.npy') for name in inner):
        raise CheckpointError(f'{path}: arrays of numpy (.npz), not a file of PyTorch weights')
    if names and not any(name.endswith('.pkl') for name in inner):
        raise CheckpointError(f'{path}: a zip archive of {", ".join(names[:3])}; unpack it first')


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 1 << 27


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f'{path}: truncated or not safetensors ({error}); fetch it again'
        ) from error


def _read_pickled(path: Path) -> Any:
    options: dict[str, Any] = {'map_location': 'cpu', 'mmap': zipfile.is_zipfile(path)}
    try:
        try:
            with warnings.catch_warnings():
                # torch warns of pickle protocols above 2; what it cannot read is read below.
                warnings.simplefilter('ignore')
                return torch.load(path, weights_only=True, **options)
        except pickle.UnpicklingError:
            return torch.load(
                path, weights_only=False, pickle_module=_RESTRICTED_PICKLE, **options
            )
    except _BROKEN as error:
        reason = next(iter(str(error).splitlines()), 'end')
        if isinstance(error, pickle.UnpicklingError) and 'is not data' in reason:
            raise CheckpointError(f'{path}: refused, nothing of it was run: {reason}') from error
        reason = reason.partition('. ')[0]  # what torch advises behind it does not apply here
        raise CheckpointError(
            f'{path}: truncated or not a checkpoint ({path.stat().st_size} bytes: {reason}); '
            f'fetch it again'
        ) from error
