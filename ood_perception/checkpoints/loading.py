# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Load a checkpoint into a model: strict, all or nothing, with a report; and files of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ood_perception.checkpoints.origins import ORIGINS, Converted, detect_origin
from ood_perception.checkpoints.reading import read_checkpoint, tensors_of
from ood_perception.checkpoints.store import CheckpointError, resolve

PREFIX_DEPTH = 4  # parts of a key that a wrapper may have put in front, at most


@dataclass
class LoadReport:
    """Every key of a checkpoint, by what became of it."""

    origin: str  # whose format it was: mmseg, dinov2, uem, detectron2, sam or ours
    used: list[str] = field(default_factory=list)  # keys of the checkpoint that were loaded
    # keys of the checkpoint that the model does not need -> why
    ignored: dict[str, str] = field(default_factory=dict)
    # parameters of the model that the checkpoint lacks
    missing: list[str] = field(default_factory=list)
    # parameter -> (shape in the checkpoint, shape in the model)
    wrong_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    # keys of the checkpoint that nothing accounts for
    unexpected: list[str] = field(default_factory=list)
    # parameters that the checkpoint lacks and that inference does not need
    optional: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, wrong-shaped or unexpected."""
        return not (self.missing or self.wrong_shape or self.unexpected)

    def __str__(self) -> str:
        parts = [f'origin {self.origin}', f'{len(self.used)} keys used']
        if self.ignored:
            reasons = ', '.join(sorted(set(self.ignored.values())))
            parts.append(f'{len(self.ignored)} ignored ({reasons})')
        if self.optional:
            parts.append(f'{len(self.optional)} optional ones absent')
        if self.missing:
            parts.append(f'{len(self.missing)} missing ({_some(self.missing)})')
        if self.wrong_shape:
            shapes = [f'{k} is {got}, expected {to}' for k, (got, to) in self.wrong_shape.items()]
            parts.append(f'{len(shapes)} of the wrong shape ({_some(shapes)})')
        if self.unexpected:
            parts.append(f'{len(self.unexpected)} unexpected ({_some(self.unexpected)})')
        return '; '.join(parts)


def _some(names: Collection[str], limit: int = 3) -> str:
    shown = list(names)[:limit]
    return ', '.join(shown) + (', ...' if len(names) > limit else '')


def load_checkpoint(
    model: nn.Module, source: str | Path | Mapping[str, Any], origin: str = 'auto'
) -> LoadReport:
    """
    Load weights, strictly: every parameter is found with its shape, or nothing changes.

    Args:
        model: what `models.create_model` built, or any module whose names the file has.
        source: a file (.pth, .pt, .ckpt, .safetensors), or a mapping with official keys (the
            tensors themselves or the outer dict of the file).
        origin: key of `origins.ORIGINS`, or 'auto' to tell it by the keys.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, unsafe, or not this model's; `.report` has the keys.
    """
    if isinstance(source, Mapping):
        state, name = tensors_of(source, 'mapping'), 'mapping'
    else:
        state, name = read_checkpoint(source), str(source)
    converted, report = match(model, state, origin, name)
    # On the meta device there is nothing to copy into: the tensors themselves become parameters.
    assign = any(parameter.is_meta for parameter in model.parameters())
    model.load_state_dict(converted.tensors, strict=not report.optional, assign=assign)
    return report


def match(
    model: nn.Module, state: Mapping[str, Tensor], origin: str = 'auto', name: str = 'mapping'
) -> tuple[Converted, LoadReport]:
    """
    Convert a checkpoint and check it against the model, loading nothing.

    Args:
        model: as in :func:`load_checkpoint`; only its number of classes may change.

    Raises:
        CheckpointError: not this model's.
    """
    if origin != 'auto' and origin not in ORIGINS:
        raise ValueError(f'origin: expected auto or one of {", ".join(ORIGINS)}, got {origin!r}')
    first: CheckpointError | None = None
    for prefix, part in parts(state):
        try:
            converted, report = _match(model, part, origin, name)
        except CheckpointError as error:
            first = first or error
            continue
        if prefix:
            report.ignored |= {
                key: f'not below {prefix}' for key in state if not key.startswith(prefix)
            }
        return converted, report
    assert first is not None
    raise first


def parts(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    """
    Yield the whole checkpoint, then what lies below a prefix that most of its keys share.

    Wrappers of training frameworks put such prefixes there: `module.`, `model.`, `_orig_mod.`,
    `model.backbone.`
    """
    yield '', state
    heads: Counter[str] = Counter()
    for key in state:
        pieces = key.split('.')
        for depth in range(1, min(len(pieces), PREFIX_DEPTH + 1)):
            heads['.'.join(pieces[:depth]) + '.'] += 1
    for prefix, count in sorted(heads.items(), key=lambda item: len(item[0])):
        if 2 * count > len(state):
            yield (
                prefix,
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)},
            )


def _match(
    model: nn.Module, state: Mapping[str, Tensor], origin: str, name: str
) -> tuple[Converted, LoadReport]:
    if origin == 'auto':
        origin = detect_origin(state, model.state_dict())
        if not origin:
            keys = ', '.join(list(state)[:3])
            raise CheckpointError(
                f'{name}: not a checkpoint of any known origin ({", ".join(ORIGINS)}); '
                f'its first keys are {keys}'
            )
    try:
        converted = ORIGINS[origin](state, model)
    except (RuntimeError, IndexError) as error:
        raise CheckpointError(
            f'{name}: its tensors are not those of a {origin} checkpoint: {error}'
        ) from error
    report = _compare(model, converted, origin)
    if not report.ok and _adapt_classes(model, converted, report):
        report = _compare(model, converted, origin)
    if not report.ok:
        raise CheckpointError(
            f'{name}: does not fit {type(model).__name__}, nothing was loaded: {report}', report
        )
    return converted, report


def _compare(model: nn.Module, converted: Converted, origin: str) -> LoadReport:
    report = LoadReport(origin, ignored=dict(converted.ignored))
    own = model.state_dict()
    # An optional part may be absent as a whole, not in pieces.
    optional = tuple(
        prefix
        for prefix in getattr(model, 'optional_keys', ())
        if not any(name.startswith(prefix) for name in converted.tensors)
    )
    used: dict[str, None] = {}
    for name, value in converted.tensors.items():
        keys = converted.sources[name]
        if name not in own:
            report.unexpected += keys
        elif value.shape != own[name].shape:
            report.wrong_shape[name] = tuple(value.shape), tuple(own[name].shape)
        else:
            used.update(dict.fromkeys(keys))
    report.used = list(used)
    absent = [name for name in own if name not in converted.tensors]
    report.optional = [name for name in absent if optional and name.startswith(optional)]
    report.missing = [name for name in absent if name not in report.optional]
    return report


def _adapt_classes(model: nn.Module, converted: Converted, report: LoadReport) -> bool:
    # Only the classifier's rows may differ, and only where nobody fixed their number.
    weight = converted.tensors.get('decode_head.conv_seg.weight')
    set_num_classes = getattr(model, 'set_num_classes', None)
    if weight is None or set_num_classes is None or not getattr(model, 'adapt_classes', False):
        return False
    rows_only = all(
        '.conv_seg.' in name and got[1:] == expected[1:]
        for name, (got, expected) in report.wrong_shape.items()
    )
    if report.missing or report.unexpected or not rows_only:
        return False
    set_num_classes(len(weight))
    return True


def load_exactly(module: nn.Module, weights: str) -> None:
    """
    Load a safetensors file into a module, every key and shape equal.

    Args:
        weights: ``package:FILE`` for a file in ``ood_perception/weights``, a path, or a name of
            the weights catalogue.

    Raises:
        OSError: there is no such file.
        ValueError: it is no safetensors file, or keys or shapes differ; the message names them.
    """
    path = resolve(weights)
    try:
        module.load_state_dict(load_file(path), strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f'weights {path}: {error}') from error


def read_tensors(reference: str, keys: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """
    Read tensors of learnt statistics and the text stored beside them.

    Args:
        reference: as `weights` of :func:`load_exactly`.
        keys: tensors that the file must hold, all finite.

    Returns:
        Tensors by key, on the host, and the file's metadata.

    Raises:
        OSError: there is no such file.
        ValueError: it is no safetensors file, a tensor is missing, or one holds NaN or infinity.
    """
    path = resolve(reference)
    try:
        with safe_open(str(path), 'pt') as file:
            metadata = dict(file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
    except SafetensorError as error:
        raise ValueError(f'{path} is no safetensors file: {error}') from error
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(f'{path} lacks {", ".join(missing)}')
    if not all(bool(torch.isfinite(state[key]).all()) for key in keys):
        raise ValueError(f'{path} holds NaN or infinity')
    return state, metadata
