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
import logging
import os
import sys
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

# Strict: a profile that says 'yes' or 1.0 where a whole number is meant is a mistake to tell.
Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Pixels = Annotated[int, Strict(), Field(ge=0)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Options = dict[Text, Any]

CONFIG = ConfigDict(extra='forbid')

log = logging.getLogger(__name__)


class ProfileError(ValueError):
    """A profile, or a weight file it names, is wrong; the message starts with the key's path."""


@dataclass(frozen=True, config=CONFIG)
class ImageConfig:
    """
    Size at which a frame is processed; aspect ratio kept, sides rounded to the model's multiple.

    Attributes:
        short_side: pixels of the shorter side, 0 = the frame's own size.
        max_long_side: upper bound of the longer side in pixels, 0 = none.
    """

    short_side: Pixels = 0
    max_long_side: Pixels = 0


@dataclass(frozen=True, config=CONFIG)
class StageConfig:
    """
    One stage: an entry of a registry, its weights and its options.

    Attributes:
        name: entry of the stage's registry.
        weights: '' for none, ``package:FILE`` for a file shipped in the package, a file path, or a
            name of the weights catalogue (see ``ood weights list``).
        options: keyword arguments of the registry entry.
    """

    name: Text = ''
    weights: Text = ''
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, config=CONFIG)
class MemoryConfig:
    """
    How the score of a frame is joined with those of the frames before, see ``scores.memory``.

    Attributes:
        seconds: after so long an earlier score weighs 1 / e of its first weight; 0 = every frame
            stands alone.
    """

    seconds: Annotated[Number, Field(ge=0)] = 0.0


@dataclass(frozen=True, config=CONFIG)
class ScoreConfig(StageConfig):
    """
    The score: a stage with a memory.

    Attributes:
        name: entry of ``scores.SCORES``.
        weights: as of the other stages.
        options: keyword arguments of the registry entry.
        memory: of the frames before.
    """

    memory: MemoryConfig = field(default_factory=MemoryConfig)


@dataclass(frozen=True, config=CONFIG)
class CalibrationConfig:
    """
    From score to the probability of being unknown.

    Attributes:
        kind: 'platt' (sigmoid(slope * score + offset)) or 'quantile' (piecewise linear through
            (knots[i], values[i])).
        slope: of the Platt map, per unit of score, above 0.
        offset: of the Platt map.
        knots: increasing scores of the quantile map.
        values: probabilities 0..1 at the knots.
    """

    kind: Literal['platt', 'quantile'] = 'platt'
    slope: Annotated[Number, Field(gt=0)] = 1.0
    offset: Number = 0.0
    knots: list[Number] = field(default_factory=list)
    values: list[Annotated[Number, Field(ge=0, le=1)]] = field(default_factory=list)


@dataclass(frozen=True, config=CONFIG)
class TrackingConfig:
    """
    How objects keep their ids through time.

    Attributes:
        enabled: False numbers instances 1..N afresh in every frame.
        options: keyword arguments of ``masks.tracking.Tracker``.
    """

    enabled: Flag = True
    options: Options = field(default_factory=dict)


@dataclass(frozen=True, config=CONFIG)
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
        mask_model: entry of ``masks.MASK_MODELS``; the old key ``segmenter`` is read with a
            warning for one release.
        tracking: ids through time.
        precision: 'float32', 'float16' or 'bfloat16' of the segmentor on a GPU; the CPU always
            computes in float32.
        classes: names of the segmentor's classes in the order of its logits.
        ground_classes: those of `classes` that objects stand on; none = an object's surroundings
            are not told.
        licence: licence of the weights, for people.
    """

    name: Text = ''
    description: Text = ''
    image: ImageConfig = field(default_factory=ImageConfig)
    segmentor: StageConfig = field(default_factory=StageConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    prompts: StageConfig = field(default_factory=StageConfig)
    mask_model: StageConfig = field(default_factory=StageConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    precision: Literal['float32', 'float16', 'bfloat16'] = 'float32'
    classes: list[Text] = field(default_factory=list)
    ground_classes: list[Text] = field(default_factory=list)
    licence: Text = ''

    @classmethod
    def load(cls, name_or_path: str | Path) -> Profile:
        """
        Read a profile by its name (``compact``) or from a YAML file.

        Raises:
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
        try:
            profile: Profile = TypeAdapter(cls).validate_python(_without_none(_renamed(tree)))
        except ValidationError as error:
            raise ProfileError(_first_line(error)) from None
        _check(profile)
        return profile

    def weight_names(self) -> list[str]:
        """What the stages name as weights, in order, each once."""
        stages = (self.segmentor, self.score, self.prompts, self.mask_model)
        return list(dict.fromkeys(stage.weights for stage in stages if stage.weights))

    def to_dict(self) -> dict[str, Any]:
        """Nested mappings that :meth:`from_dict` accepts."""
        return dataclasses.asdict(self)

    def save(self, path: str | Path) -> None:
        """Write the profile as YAML."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
        Path(path).write_text(text, encoding='utf-8')


def _renamed(tree: Any) -> Any:
    """Replace keys that had another name in the last release, with a warning."""
    if not isinstance(tree, dict) or 'segmenter' not in tree:
        return tree
    if 'mask_model' in tree:
        raise ProfileError('segmenter: the old name of mask_model, which is there too; remove it')
    log.warning('profile: the key segmenter is called mask_model now; change the profile')
    return {'mask_model' if key == 'segmenter' else key: value for key, value in tree.items()}


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


def _without_none(tree: Any) -> Any:
    """Take a key without a value for a key that is not there."""
    if not isinstance(tree, dict):
        return {} if tree is None else tree
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value is not None
    }


_EXPECTED = {
    'int_type': 'int',
    'float_type': 'float',
    'string_type': 'str',
    'bool_type': 'bool',
    'list_type': 'a list',
    'dict_type': 'a mapping with text keys',
    'dataclass_type': 'a mapping',
    'finite_number': 'a number',
    'literal_error': 'one of {expected}',
    'greater_than_equal': '{ge} or more',
    'greater_than': 'more than {gt}',
    'less_than_equal': '{le} or less',
}
"""pydantic's kinds of errors -> what a profile should have had."""


def _first_line(error: ValidationError) -> str:
    """Path of the first wrong key, the value it got and what would be right."""
    first = error.errors()[0]
    parts = [f'[{part}]' if isinstance(part, int) else f'.{part}' for part in first['loc']]
    path = ''.join(parts).removeprefix('.').removesuffix('[key]').removesuffix('.') or 'profile'
    if first['type'] == 'unexpected_keyword_argument':
        names = _names_beside(first['loc'])
        close = difflib.get_close_matches(str(first['loc'][-1]), names, n=1)
        hint = f'did you mean {close[0]!r}?' if close else f'known keys: {", ".join(names)}'
        return f'{path}: unknown key; {hint}'
    expected = _EXPECTED.get(first['type'])
    if expected is None:
        return f'{path}: {first["msg"]}, got {first["input"]!r}'
    context = {
        key: f'{value:g}' if isinstance(value, float) else value
        for key, value in first.get('ctx', {}).items()
    }
    return f'{path}: expected {expected.format(**context)}, got {first["input"]!r}'


def _names_beside(location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys that may stand where an unknown one was found."""
    kind: Any = Profile
    for key in location[:-1]:
        kind = type(getattr(kind(), str(key)))
    return [f.name for f in dataclasses.fields(kind)]


def _check(profile: Profile) -> None:
    """Raise ProfileError for what several keys together get wrong."""
    for stage in ('segmentor', 'score'):
        if not getattr(profile, stage).name:
            raise ProfileError(f'{stage}.name: missing')
    if profile.prompts.name and not profile.mask_model.name:
        raise ProfileError('mask_model.name: missing; boxes of `prompts` need one to become masks')
    if profile.mask_model.name and not profile.prompts.name:
        raise ProfileError('prompts.name: missing; `mask_model` needs boxes')
    if unknown := [name for name in profile.ground_classes if name not in profile.classes]:
        raise ProfileError(f'ground_classes: not among the classes: {", ".join(unknown)}')
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
