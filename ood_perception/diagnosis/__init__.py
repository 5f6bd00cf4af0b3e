# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What can be wrong with an installation, each finding with its remedy. Needs no ROS to run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

from ood_perception.diagnosis import engines, hardware, middleware, software
from ood_perception.diagnosis.software import ERROR, OK, WARN, Finding

__all__ = ['ERROR', 'OK', 'WARN', 'Finding', 'cheap_checks', 'thorough_checks']

Check = Callable[[], Iterator[Finding]]


def cheap_checks(profile: str = 'compact', image_bytes: int = 1280 * 720 * 3) -> list[Finding]:
    """
    Every check that needs neither a camera nor a second process; takes well under a second.

    Args:
        profile: name or path of the profile that will run.
        image_bytes: size of the camera's raw image, for the transport's buffers.

    Returns:
        Findings in the order of the checks; a check that fails is a finding, never an exception.
    """
    return _run(
        [
            software.check_python,
            software.check_versions,
            software.check_duplicates,
            hardware.check_device,
            hardware.check_jetson,
            engines.check_installed,
            middleware.check_ros,
            middleware.check_domain,
            lambda: middleware.check_transport(image_bytes),
            hardware.check_clock,
            lambda: software.check_profile(profile),
        ]
    )


def thorough_checks(
    profile: str = 'compact', size: tuple[int, int] = (720, 1280)
) -> list[Finding]:
    """
    Checks that try what the others only look at; they take some seconds.

    Args:
        profile: name or path of the profile that will run.
        size: (height, width) of the camera's image in pixels.
    """
    choice = functools.partial(engines.check_choice, profile, size)
    return _run([software.check_imports, engines.check_engines, choice])


def _run(checks: Iterable[Check]) -> list[Finding]:
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check())
        except Exception as error:
            name = getattr(check, '__name__', 'check')
            text = f'the check itself failed: {error!r}'
            findings.append(Finding(name, ERROR, text, 'please report this line'))
    return findings
