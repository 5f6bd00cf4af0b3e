# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Profile: the typed, validated description of a pipeline, read from YAML.

A wrong profile is one error that names the path of the wrong key, the value it got and what would
be right, for example ``prompts.options.max_boxes: expected int, got 'many'``.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import os
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


class ProfileError(ValueError):
    """A profile, or a weight file it names, is wrong; the message starts with the key's path."""


@dataclass(frozen=True)
class ImageConfig:
    """
    Size at which a frame is processed; aspect ratio kept, sides rounded to the model's multiple.

    Attributes:
        short_side: pixels of the shorter side, 0 = the frame's own size.
        max_long_side: upper bound of the longer side in pixels, 0 = none.

    """

    short_side: int = 0
    max_long_side: int = 0


@dataclass(frozen=True)
class StageConfig:
    """
    One stage: an entry of a registry, its weights and its options.

    Attributes:
        name: entry of the stage's registry.
        weights: '' for none, ``package:FILE`` for a file shipped in the package, a file path, or a
            name of the weights catalogue (see ``ood weights list``).
        options: keyword arguments of the registry entry.

    """

    name: str = ''
    weights: str = ''
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CalibrationConfig:
    """
    From score to the probability of being unknown.

    Attributes:
        kind: 'platt' (sigmoid(slope * score + offset)) or 'quantile' (piecewise linear through
            (knots[i], values[i])).
        slope: of the Platt map, per unit of score.
        offset: of the Platt map.
        knots: increasing scores of the quantile map.
        values: probabilities 0..1 at the knots.

    """

    kind: str = 'platt'
    slope: float = 1.0
    offset: float = 0.0
    knots: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TrackingConfig:
    """
    How objects keep their ids through time.

    Attributes:
        enabled: False numbers instances 1..N afresh in every frame.
        options: keyword arguments of ``masks.tracking.Tracker``.

    """

    enabled: bool = True
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """
    A whole pipeline by name: from image size and segmentor to tracking.

    Attributes:
        name: of the profile.
        description: one line for people.
        image: processing size.
        segmentor: entry of ``models.SEGMENTORS``.
        score: entry of ``scores.SCORES``.
        calibration: score -> probability.
        prompts: entry of ``masks.PROMPTS``; an empty name leaves out boxes and masks.
        segmenter: entry of ``masks.SEGMENTERS``.
        tracking: ids through time.
        precision: 'float32', 'float16' or 'bfloat16' of the segmentor on a GPU; the CPU always
            computes in float32.
        classes: names of the segmentor's classes in the order of its logits.
        licence: licence of the weights, for people.

    """

    name: str = ''
    description: str = ''
    image: ImageConfig = field(default_factory=ImageConfig)
    segmentor: StageConfig = field(default_factory=StageConfig)
    score: StageConfig = field(default_factory=StageConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    prompts: StageConfig = field(default_factory=StageConfig)
    segmenter: StageConfig = field(default_factory=StageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    precision: str = 'float32'
    classes: list[str] = field(default_factory=list)
    licence: str = ''

    @classmethod
    def load(cls, name_or_path: str | Path) -> Profile:
        """
        Read a profile by its name (``compact``) or from a YAML file.

        Raises
        ------
            ProfileError: no such profile, not YAML, unknown key, wrong type or value.

        """
        path = find_profile(name_or_path)
        try:
            tree = yaml.safe_load(path.read_text(encoding='utf-8'))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ProfileError(f'{path}: cannot be read as YAML: {error}') from error
        try:
            return cls.from_dict(tree)
        except ProfileError as error:
            raise ProfileError(f'{path}: {error}') from error

    @classmethod
    def from_dict(cls, tree: Any) -> Profile:
        """Build a profile from nested mappings. Raises ProfileError with the key's path."""
        profile = _build(cls, tree, '')
        _check(profile)
        return profile

    def weight_names(self) -> list[str]:
        """What the stages name as weights, in order, each once."""
        stages = (self.segmentor, self.score, self.prompts, self.segmenter)
        return list(dict.fromkeys(stage.weights for stage in stages if stage.weights))

    def to_dict(self) -> dict[str, Any]:
        """Nested mappings that :meth:`from_dict` accepts."""
        return dataclasses.asdict(self)

    def save(self, path: str | Path) -> None:
        """Write the profile as YAML."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        Path(path).write_text(text, encoding='utf-8')


def profile_folders() -> list[Path]:
    """Folders that are searched for profiles by name, the user's own first."""
    folders = [Path(p) for p in os.environ.get('OOD_PROFILE_PATH', '').split(os.pathsep) if p]
    folders.append(Path(__file__).resolve().parent.parent / 'config' / 'profiles')
    # <prefix>/lib/pythonX.Y/site-packages/ood_perception/profile.py
    own = [str(path) for path in list(Path(__file__).resolve().parents)[4:5]]
    ament = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    for prefix in [*ament, *own, sys.prefix]:
        share = Path(prefix) / 'share' / 'ood_perception' / 'config' / 'profiles'
        folders += [share] if prefix else []
    return folders


def profile_names() -> list[str]:
    """Names of all profiles that :meth:`Profile.load` finds, sorted."""
    return sorted({path.stem for folder in profile_folders() for path in folder.glob('*.yaml')})


def find_profile(name_or_path: str | Path) -> Path:
    """Path of a profile given by name or path. Raises ProfileError naming what there is."""
    text = str(name_or_path)
    if text.endswith(('.yaml', '.yml')) or os.sep in text:
        path = Path(text).expanduser()
        if not path.is_file():
            raise ProfileError(f'no profile file at {path}')
        return path
    for folder in profile_folders():
        path = folder / f'{text}.yaml'
        if path.is_file():
            return path
    raise ProfileError(f'no profile named {text!r}; there are: {", ".join(profile_names())}')


def _build(kind: Any, tree: Any, path: str) -> Any:
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ProfileError(f'{path or "profile"}: expected a mapping, got {tree!r}')
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    values = {}
    for key, value in tree.items():
        where = f'{path}.{key}' if path else str(key)
        if key not in names:
            close = difflib.get_close_matches(str(key), names, n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'known keys: {", ".join(names)}'
            raise ProfileError(f'{where}: unknown key; {hint}')
        values[key] = _convert(hints[key], value, where)
    return kind(**values)


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path)
    origin = typing.get_origin(hint)
    if origin is list:
        if not isinstance(value, list):
            raise ProfileError(f'{path}: expected a list, got {value!r}')
        (item,) = typing.get_args(hint)
        return [_convert(item, v, f'{path}[{i}]') for i, v in enumerate(value)]
    if origin is dict:
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
            raise ProfileError(f'{path}: expected a mapping with text keys, got {value!r}')
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (
        isinstance(hint, types.UnionType)
        or not isinstance(value, hint)
        or (hint is int and isinstance(value, bool))
    ):
        raise ProfileError(f'{path}: expected {hint.__name__}, got {value!r}')
    if isinstance(value, float) and value != value:
        raise ProfileError(f'{path}: expected a number, got nan')
    return value


def _check(profile: Profile) -> None:
    choices = {
        'precision': (profile.precision, ('float32', 'float16', 'bfloat16')),
        'calibration.kind': (profile.calibration.kind, ('platt', 'quantile')),
    }
    for path, (value, allowed) in choices.items():
        if value not in allowed:
            raise ProfileError(f'{path}: expected one of {", ".join(allowed)}, got {value!r}')
    for path, number in (
        ('image.short_side', profile.image.short_side),
        ('image.max_long_side', profile.image.max_long_side),
    ):
        if number < 0:
            raise ProfileError(f'{path}: expected 0 or more pixels, got {number}')
    for path, text in (
        ('segmentor.name', profile.segmentor.name),
        ('score.name', profile.score.name),
    ):
        if not text:
            raise ProfileError(f'{path}: missing')
    calibration = profile.calibration
    if calibration.kind == 'quantile':
        knots, values = calibration.knots, calibration.values
        if len(knots) < 2 or len(knots) != len(values):
            raise ProfileError(
                f'calibration.knots: expected as many as values and at least 2, '
                f'got {len(knots)} and {len(values)}'
            )
        if any(b <= a for a, b in itertools.pairwise(knots)):
            raise ProfileError('calibration.knots: expected increasing numbers')
        if any(not 0 <= v <= 1 for v in values):
            raise ProfileError('calibration.values: expected probabilities 0..1')
