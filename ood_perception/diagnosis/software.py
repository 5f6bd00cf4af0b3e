# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Python, the libraries and their copies, the profile and its weights."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ood_perception.profile import Profile, ProfileError, profile_names

OK, WARN, ERROR = 'ok', 'warn', 'error'

OPENCV = (
    'opencv-python-headless', 'opencv-python', 'opencv-contrib-python',
    'opencv-contrib-python-headless',
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str  # what was looked at
    level: str  # 'ok', 'warn' or 'error'
    text: str  # what was found
    remedy: str = ''  # what to do about it, a command where there is one; '' = nothing is wrong


def version(distribution: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_python() -> Iterator[Finding]:
    """Python's version and whether the executables will use the right interpreter."""
    found = platform.python_version()
    tested = (3, 10) <= sys.version_info[:2] <= (3, 13)
    remedy = '' if tested else 'use Python 3.10 to 3.13, which are tested'
    yield Finding('python', OK if tested else WARN, f'{found} at {sys.executable}', remedy)
    environment = os.environ.get('VIRTUAL_ENV', '')
    if environment and Path(sys.prefix).resolve() != Path(environment).resolve():
        yield Finding(
            'virtual environment',
            WARN,
            f'{environment} is active, but this runs in {sys.prefix}',
            'build with `python -m colcon build` inside the environment, so that the '
            'executables start with `#!/usr/bin/env python3`',
        )


def check_versions() -> Iterator[Finding]:
    """Versions of what the package is built on."""
    for name in ('numpy', 'torch', 'torchvision', 'timm'):
        if found := version(name):
            yield Finding(name, OK, found)
        else:
            yield Finding(name, ERROR, 'not installed', f'pip install {name}')
    opencv = next((v for n in OPENCV if (v := version(n))), None)
    remedy = 'pip install "opencv-python-headless<5"'
    if opencv is None and importlib.util.find_spec('cv2') is None:
        yield Finding('opencv', ERROR, 'not installed', remedy)
    elif opencv and int(opencv.split('.')[0]) >= 5:
        yield Finding('opencv', WARN, f'{opencv}; tested up to 4', remedy)
    else:
        yield Finding('opencv', OK, opencv or 'from the system')


def check_duplicates() -> Iterator[Finding]:
    """Several copies of a library in sight, of which one was built against the other."""
    copies = distributions('numpy')
    if len({number for number, _ in copies}) > 1:
        used, others = copies[0], copies[1:]
        major = others[0][0].split('.')[0]
        yield Finding(
            'numpy copies',
            WARN,
            f'{_copy(used)} hides {", ".join(map(_copy, others))}: modules that were built for '
            f'that one, as cv_bridge of a ROS distribution, can fail',
            f'pip install "numpy>={major},<{int(major) + 1}"',
        )
    opencv = {name: found for name in OPENCV if (found := distributions(name))}
    places = [place for found in opencv.values() for _, place in found]
    if len(places) > len(set(places)):
        yield Finding(
            'opencv copies',
            WARN,
            f'{", ".join(opencv)} lie in one folder and overwrite each other',
            f'pip uninstall -y {" ".join(opencv)} && pip install "opencv-python-headless<5"',
        )
    bridges = folders('cv_bridge')
    if len(bridges) > 1:
        yield Finding(
            'cv_bridge copies',
            WARN,
            f'{bridges[0]} hides {", ".join(bridges[1:])}',
            "pip uninstall cv-bridge: the distribution's fits its own messages and OpenCV",
        )


def check_imports() -> Iterator[Finding]:
    """Whether cv_bridge, which has compiled parts, is broken though it is found."""
    if importlib.util.find_spec('cv_bridge') is None:
        return
    # In a process of its own: what was built for another numpy can end this one.
    command = [sys.executable, '-c', 'import cv_bridge']
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f'exit {done.returncode}'])[-1]
        remedy = 'pip install "numpy<2", or the numpy that it was built with'
        yield Finding('cv_bridge', WARN, f'cannot be imported: {last}', remedy)


def distributions(name: str) -> list[tuple[str, str]]:
    """Version and folder of each copy of a distribution on the module path, the used one first."""
    found = []
    for path in dict.fromkeys(sys.path):
        for item in importlib.metadata.distributions(name=name, path=[path]):
            place = str(Path(str(item.locate_file(''))).resolve())
            if (item.version, place) not in found:
                found.append((item.version, place))
    return found


def folders(module: str) -> list[str]:
    """Folders on the module path that hold a package of this name, the used one first."""
    places = [Path(path or '.') / module for path in sys.path]
    return list(dict.fromkeys(str(p.resolve()) for p in places if (p / '__init__.py').is_file()))


def check_profile(name: str) -> Iterator[Finding]:
    """The profile and its weight files."""
    from ood_perception.checkpoints.store import resolve

    try:
        profile = Profile.load(name)
    except ProfileError as error:
        yield Finding('profile', ERROR, str(error), f'one of: {", ".join(profile_names())}')
        return
    yield Finding('profile', OK, f'{profile.name}: {profile.description}')
    for stage in ('segmentor', 'score', 'prompts', 'mask_model'):
        reference = getattr(profile, stage).weights
        if not reference:
            continue
        try:
            path = resolve(reference)
        except (OSError, ValueError) as error:
            remedy = f'`ood weights fetch {profile.name}`, or `ood weights list`'
            yield Finding(f'{stage}.weights', ERROR, str(error), remedy)
        else:
            size = path.stat().st_size / 2**20
            yield Finding(f'{stage}.weights', OK, f'{path.name}, {size:.1f} MB')


def _copy(found: tuple[str, str]) -> str:
    return f'{found[0]} in {found[1]}'
