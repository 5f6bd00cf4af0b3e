# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator as SchemaCheck

from ood_perception.profile import Profile, ProfileError, find_profile, profile_names
from tools.profile_schema import profile_schema

CONFIG = Path(__file__).resolve().parents[1] / 'config'

GOOD = {'name': 'x', 'segmentor': {'name': 'compact'}, 'score': {'name': 'llr'}}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'segmentr': {}}, "segmentr: unknown key; did you mean 'segmentor'"),
        ({'image': {'short_side': 'big'}}, "image.short_side: expected int, got 'big'"),
        ({'image': {'short_side': True}}, 'image.short_side: expected int, got True'),
        ({'image': {'short_side': -1}}, 'image.short_side: expected 0 or more, got -1'),
        ({'image': 3}, 'image: expected a mapping, got 3'),
        ({'classes': 'road'}, "classes: expected a list, got 'road'"),
        ({'classes': ['road', 3]}, r'classes\[1\]: expected str, got 3'),
        ({'precision': 'int8'}, "precision: expected one of 'float32'.*got 'int8'"),
        ({'calibration': {'slope': 'steep'}}, "calibration.slope: expected float, got 'steep'"),
        ({'calibration': {'slope': float('nan')}}, 'calibration.slope: expected a number'),
        ({'calibration': {'kind': 'quantile', 'knots': [1.0]}}, 'calibration.knots'),
        (
            {'calibration': {'kind': 'quantile', 'knots': [1.0, 1.0], 'values': [0.0, 1.0]}},
            'increasing',
        ),
        (
            {'calibration': {'kind': 'quantile', 'knots': [0.0, 1.0], 'values': [0.0, 2.0]}},
            r'calibration.values\[1\]: expected 1 or less, got 2.0',
        ),
        ({'calibration': {'slope': float('inf')}}, 'calibration.slope: expected a number'),
        ({'calibration': {'slope': -1}}, 'calibration.slope: expected more than 0, got -1'),
        ({'calibration': {'slop': 1}}, "calibration.slop: unknown key; did you mean 'slope'"),
        ({'image': {'depth': 1}}, 'image.depth: unknown key; known keys: short_side, max_long'),
        ({'tracking': {'enabled': 'yes'}}, "tracking.enabled: expected bool, got 'yes'"),
        ({'image': {'short_side': 480.0}}, 'image.short_side: expected int, got 480.0'),
        ({'score': {}}, 'score.name: missing'),
        ({'prompts': {'name': 'components'}}, 'mask_model.name: missing'),
        ({'mask_model': {'name': 'compact'}}, 'prompts.name: missing'),
        ({'segmenter': {'nam': 'compact'}}, 'mask_model.nam: unknown key'),
        ({'segmenter': {}, 'mask_model': {}}, 'segmenter: the old name of mask_model'),
        ({'ground_classes': ['road']}, 'ground_classes: not among the classes: road'),
        ({'classes': ['road'], 'ground_classes': 'road'}, 'ground_classes: expected a list'),
        ({'prompts': {'options': {1: 2}}}, r'prompts.options\[1\]: expected str, got 1'),
        ({'prompts': {'options': [1]}}, r'prompts.options: expected a mapping.*got \[1\]'),
    ],
)
def test_what_is_wrong_is_named_with_its_path(change: dict, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        Profile.from_dict({**GOOD, **change})


def test_integers_are_numbers_and_defaults_fill_in() -> None:
    profile = Profile.from_dict({**GOOD, 'calibration': {'slope': 2}})
    assert profile.calibration.slope == 2.0
    assert profile.tracking.enabled
    assert profile.precision == 'float32'


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / 'p.yaml'
    masks = {'prompts': {'name': 'components'}, 'mask_model': {'name': 'compact'}}
    classes = {'classes': ['road'], 'ground_classes': ['road']}
    profile = Profile.from_dict({**GOOD, **classes, **masks})
    profile.save(path)
    assert Profile.load(path) == profile


def test_old_name_of_the_mask_model_is_read_with_a_warning(caplog) -> None:
    masks = {'prompts': {'name': 'components'}, 'segmenter': {'name': 'compact'}}
    profile = Profile.from_dict({**GOOD, **masks})
    assert profile.mask_model.name == 'compact'
    assert 'segmenter is called mask_model now' in caplog.text
    assert 'segmenter' not in profile.to_dict()


@pytest.mark.parametrize('name', profile_names())
def test_every_shipped_profile_reads(name: str) -> None:
    profile = Profile.load(name)
    assert profile.name == name
    assert profile.description


def test_schema_for_editors_is_what_the_code_says() -> None:
    schema = json.loads((CONFIG / 'profile.schema.json').read_text(encoding='utf-8'))
    written = {key: schema.pop(key) for key in ('$schema', '$comment')}
    assert schema == profile_schema(), written['$comment']
    for part in (schema, *schema['$defs'].values()):
        assert all(key['description'] for key in part['properties'].values())


@pytest.mark.parametrize('path', sorted(CONFIG.glob('profiles/*.yaml')), ids=lambda p: p.stem)
def test_every_shipped_profile_fits_the_schema_it_names(path: Path) -> None:
    first = path.read_text(encoding='utf-8').splitlines()[0]
    name = first.removeprefix('# yaml-language-server: $schema=')
    check = SchemaCheck(json.loads((path.parent / name).read_text(encoding='utf-8')))
    tree = yaml.safe_load(path.read_text(encoding='utf-8'))
    check.validate(tree)
    for wrong in ({'segmentr': {}}, {'image': {'short_side': 'big'}}, {'precision': 'int8'}):
        assert not check.is_valid({**tree, **wrong})


def test_missing_profiles_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"no profile named 'compct'; there are: .*compact"):
        Profile.load('compct')
    with pytest.raises(ProfileError, match='no profile file at'):
        Profile.load(tmp_path / 'none.yaml')
    broken = tmp_path / 'broken.yaml'
    broken.write_text('name: [')
    with pytest.raises(ProfileError, match='cannot be read as YAML'):
        Profile.load(broken)
    broken.write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ProfileError, match=r'broken\.yaml'):
        Profile.load(broken)


def test_own_profiles_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Profile.from_dict({**GOOD, 'name': 'compact'}).save(tmp_path / 'compact.yaml')
    monkeypatch.setenv('OOD_PROFILE_PATH', str(tmp_path))
    assert find_profile('compact') == tmp_path / 'compact.yaml'


def test_key_without_a_value_is_its_default() -> None:
    tree = {**GOOD, 'image': None, 'prompts': {'name': None, 'options': None}}
    assert Profile.from_dict(tree) == Profile.from_dict(GOOD)


@pytest.mark.parametrize('tree', [None, 3, 'compact', ['compact'], {}])
def test_what_is_no_profile_is_one_error(tree: object) -> None:
    with pytest.raises(ProfileError):
        Profile.from_dict(tree)
