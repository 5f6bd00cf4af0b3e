# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from ood_perception import diagnosis
from ood_perception.diagnosis import ERROR, OK, WARN, cheap_checks, check_transport


def test_every_finding_but_ok_has_a_remedy() -> None:
    findings = cheap_checks()
    assert {'python', 'numpy', 'torch', 'device', 'profile'} <= {f.name for f in findings}
    for finding in findings:
        assert finding.level in (OK, WARN, ERROR)
        assert finding.level == OK or finding.remedy, finding


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken():
        raise RuntimeError('no /proc here')

    monkeypatch.setattr(diagnosis, 'check_clock', broken)
    (finding,) = [f for f in cheap_checks() if 'no /proc here' in f.text]
    assert finding.level == ERROR


@pytest.mark.parametrize(('exists', 'level'), [(True, OK), (False, ERROR)])
def test_transport_profile(
    exists: bool, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'fastdds.xml'
    if exists:
        path.write_text('<dds/>')
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', str(path))
    findings = {f.name: f for f in check_transport(1000)}
    assert findings['fast dds profile'].level == level


def test_no_transport_profile_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(name, raising=False)
    findings = {f.name: f for f in check_transport(1000)}
    assert findings['fast dds profile'].level == WARN


def test_old_clock_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(diagnosis.time, 'gmtime', lambda: time.struct_time((1970,) + (0,) * 8))
    (finding,) = diagnosis.check_clock()
    assert finding.level == ERROR
