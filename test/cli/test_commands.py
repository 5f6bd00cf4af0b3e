# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from ood_perception import engines
from ood_perception.bags.writing import write_drive
from ood_perception.cli.main import COMMANDS, build
from ood_simulation import ProvingGround

from small_models import small_profile

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the measuring of engines, which has tests of its own."""
    monkeypatch.setattr(engines, 'candidates', lambda *_: ['eager'])


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = RUNNER.invoke(build(name), [name, '--help'])
    assert result.exit_code == 0, result.output
    assert len(result.output) > 100


def test_all_commands_are_listed() -> None:
    result = RUNNER.invoke(build(), ['--help'])
    assert all(name in result.output for name in COMMANDS)


def test_learn_normal_makes_a_memory_and_a_profile(tmp_path: Path) -> None:
    source = tmp_path / 'in'
    source.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        cv2.imwrite(str(source / f'{i}.png'), rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    out = tmp_path / 'site.safetensors'
    small = '--profile', small_profile(tmp_path, 'compact_site')
    arguments = ['learn-normal', str(source), '--out', str(out), '--every', '1']
    result = RUNNER.invoke(build('learn-normal'), [*arguments, *small])
    assert result.exit_code == 0, result.output
    from ood_perception import Pipeline

    pipeline = Pipeline.from_profile(tmp_path / 'site.yaml', 'cpu', 'eager')
    assert pipeline.score.size > 10
    (result,) = pipeline(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8), wants={'score'})
    assert np.isfinite(result.score).all()


def test_learn_normal_refuses_what_shows_nothing(tmp_path: Path) -> None:
    out = tmp_path / 'site.safetensors'
    out.write_bytes(b'the old site')
    small = '--profile', small_profile(tmp_path, 'compact_site')
    for folder, count, why in (('few', 2, '2 frames'), ('black', 6, '0 frames that show')):
        (tmp_path / folder).mkdir()
        for i in range(count):
            picture = np.zeros((60, 80, 3), np.uint8)
            picture[:30] = 200 if folder == 'few' else 0
            cv2.imwrite(str(tmp_path / folder / f'{i}.png'), picture)
        arguments = ['learn-normal', str(tmp_path / folder), '--out', str(out), *small]
        result = RUNNER.invoke(build('learn-normal'), arguments)
        assert result.exit_code == 1
        assert why in ' '.join(result.output.split())
    assert out.read_bytes() == b'the old site'


def test_learn_normal_warns_of_what_is_in_every_frame(tmp_path: Path) -> None:
    frame = ProvingGround(1007, 320, 240).frame(60).image
    (tmp_path / 'in').mkdir()
    for i in range(6):
        cv2.imwrite(str(tmp_path / 'in' / f'{i}.png'), frame[..., ::-1])
    out = tmp_path / 'out' / 'site.safetensors'
    arguments = ['learn-normal', str(tmp_path / 'in'), '--out', str(out)]  # its own profile
    result = RUNNER.invoke(build('learn-normal'), arguments)
    assert result.exit_code == 0, result.output
    assert 'in 6 of 6 frames; what is here all the time becomes normal' in ' '.join(
        result.output.split()
    )
    assert cv2.imread(str(out.with_suffix('.jpg'))).shape == (360, 6 * 480, 3)
    merged = tmp_path / 'merged.safetensors'
    arguments = ['site', 'merge', str(out), str(out), '--out', str(merged)]
    result = RUNNER.invoke(build('site'), arguments)
    assert '12 frames' in result.output, result.output
    merged.write_bytes(b'no memory')
    result = RUNNER.invoke(build('site'), [*arguments[:2], str(merged), '--out', str(out)])
    assert result.exit_code == 1
    assert out.stat().st_size > 1000


def test_calibrate_site_measures_and_tells_a_threshold(tmp_path: Path) -> None:
    out = tmp_path / 'alarms.json'
    ground = ProvingGround(3, 160, 120, rate=1)
    seen = ground.frame(0), ground.frame(1)  # on the way new things would be drawn for each frame
    drive = (dataclasses.replace(seen[i % 2], stamp=float(i)) for i in range(12))
    write_drive(str(tmp_path / 'drive'), drive, focal=ground.focal)
    small = '--profile', small_profile(tmp_path, 'compact')
    arguments = ['calibrate-site', str(tmp_path / 'drive'), '--out', str(out), *small]
    result = RUNNER.invoke(build('calibrate-site'), [*arguments, '--topic', '/camera/image_raw'])
    assert result.exit_code == 0, result.output
    text = ' '.join(result.output.split())
    assert 'estimated, not promised' in text
    assert 'detection_threshold ' in text
    assert len(json.loads(out.read_text())['peaks']) == 2


def test_calibrate_site_needs_a_time(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / '0.png'), np.zeros((60, 80, 3), np.uint8))
    result = RUNNER.invoke(build('calibrate-site'), ['calibrate-site', str(tmp_path)])
    assert result.exit_code == 1
    assert 'pictures have no time' in ' '.join(result.output.split())


def test_learn_normal_needs_a_score_that_learns(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / '0.png'), np.zeros((60, 80, 3), np.uint8))
    arguments = ['learn-normal', str(tmp_path), '--profile', 'compact']
    result = RUNNER.invoke(build('learn-normal'), arguments)
    assert result.exit_code == 1


def test_doctor_finds_a_missing_profile_and_sends_frames() -> None:
    """In one run: it also tries every engine."""
    seconds = '1' if importlib.util.find_spec('rclpy') else '0'
    arguments = ['doctor', '--seconds', seconds, '--json', '--profile', 'nothing']
    result = RUNNER.invoke(build('doctor'), [*arguments, '--size', '640x480'])
    assert result.exit_code == 1
    findings = {f['name']: f for f in json.loads(result.output)}
    assert findings['profile']['level'] == 'error'
    assert 'compact' in findings['profile']['remedy']
    assert findings['numpy']['level'] == 'ok'
    assert all(f['remedy'] for f in findings.values() if f['level'] != 'ok')
    if seconds == '1':
        assert findings['transport']['level'] == 'ok', findings['transport']
        assert '30 of 30 images of 640x480' in findings['transport']['text']
