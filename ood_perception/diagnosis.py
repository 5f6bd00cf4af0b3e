# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What can be wrong with an installation, each finding with its remedy. Needs no ROS to run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ood_perception.profile import Profile, ProfileError, profile_names

OK, WARN, ERROR = 'ok', 'warn', 'error'


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that was looked at.

    Attributes:
        name: what was looked at.
        level: 'ok', 'warn' or 'error'.
        text: what was found.
        remedy: what to do about it, '' where nothing is wrong.

    """

    name: str
    level: str
    text: str
    remedy: str = ''


def cheap_checks(profile: str = 'compact', image_bytes: int = 1280 * 720 * 3) -> list[Finding]:
    """
    Every check that needs neither a camera nor a second process; takes well under a second.

    Args:
        profile: name or path of the profile that will run.
        image_bytes: size of the camera's raw image, for the transport's buffers.

    Returns:
        Findings in the order of the checks; a check that fails is a finding, never an exception.

    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        check_python,
        check_versions,
        check_device,
        check_engines,
        check_ros,
        lambda: check_transport(image_bytes),
        check_clock,
        lambda: check_profile(profile),
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check())
        except Exception as error:
            name = getattr(check, '__name__', 'check')
            findings.append(Finding(name, ERROR, f'the check itself failed: {error!r}'))
    return findings


def check_python() -> Iterator[Finding]:
    """Python's version and whether the executables will use the right interpreter."""
    version = platform.python_version()
    tested = (3, 10) <= sys.version_info[:2] <= (3, 13)
    remedy = '' if tested else 'tested with Python 3.10 to 3.13'
    yield Finding('python', OK if tested else WARN, f'{version} at {sys.executable}', remedy)
    environment = os.environ.get('VIRTUAL_ENV', '')
    if environment and not Path(sys.prefix).samefile(environment):
        yield Finding(
            'virtual environment',
            WARN,
            f'{environment} is active, but this runs in {sys.prefix}',
            'build with `python -m colcon build` inside the environment, so that the '
            'executables start with `#!/usr/bin/env python3`',
        )


def check_versions() -> Iterator[Finding]:
    """Versions of what the package is built on, with the combinations known to fail."""
    for name, needed in (('numpy', True), ('torch', True), ('torchvision', True), ('timm', True)):
        version = _version(name)
        if version:
            yield Finding(name, OK, version)
        elif needed:
            yield Finding(name, ERROR, 'not installed', f'pip install {name}')
    opencv = next((v for n in _OPENCV if (v := _version(n))), None)
    if opencv is None and importlib.util.find_spec('cv2') is None:
        yield Finding('opencv', ERROR, 'not installed', 'pip install "opencv-python-headless<5"')
    elif opencv and int(opencv.split('.')[0]) >= 5:
        yield Finding('opencv', WARN, opencv, 'pip install "opencv-python-headless<5"')
    else:
        yield Finding('opencv', OK, opencv or 'from the system')
    numpy = _version('numpy')
    if numpy and numpy >= '2.3' and _version('cv-bridge'):
        yield Finding(
            'cv_bridge',
            WARN,
            f'its PyPI build fails with numpy {numpy}',
            'this package does not use it on the way of a frame; for your own nodes use numpy<2.3',
        )


def check_device() -> Iterator[Finding]:
    """A GPU that torch can use."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        free, total = (b / 2**30 for b in torch.cuda.mem_get_info())
        level = OK if free > 2 else WARN
        remedy = '' if free > 2 else 'close other programs that use the GPU'
        yield Finding('device', level, f'{name}, {free:.1f} of {total:.1f} GiB free', remedy)
    elif Path('/dev/nvidia0').exists() or shutil.which('nvidia-smi'):
        yield Finding(
            'device',
            WARN,
            f'an NVIDIA driver is here, but torch {torch.__version__} sees no GPU',
            'update the driver, or install the torch build for its CUDA version',
        )
    else:
        threads = torch.get_num_threads()
        yield Finding(
            'device', OK, f'no GPU; {threads} CPU threads (profile compact is made for it)'
        )


def check_engines() -> Iterator[Finding]:
    """Optional engines."""
    found = [
        n for n in ('openvino', 'onnxruntime', 'torch_tensorrt') if importlib.util.find_spec(n)
    ]
    for name in ('openvino', 'onnxruntime'):
        if name in found:
            yield Finding(name, OK, _version(name) or 'installed')
    if 'openvino' not in found:
        yield Finding('openvino', WARN, 'not installed', 'pip install openvino: faster on a CPU')
    if 'torch_tensorrt' in found:
        yield Finding('tensorrt', OK, f'torch-tensorrt {_version("torch-tensorrt")}')
    elif shutil.which('nvidia-smi'):
        yield Finding('tensorrt', WARN, 'not installed', 'pip install torch-tensorrt')


def check_ros() -> Iterator[Finding]:
    """ROS 2 and its middleware, without importing rclpy."""
    if importlib.util.find_spec('rclpy') is None:
        yield Finding(
            'ros', ERROR, 'rclpy cannot be imported', 'source /opt/ros/<distro>/setup.bash'
        )
        return
    distro = os.environ.get('ROS_DISTRO', '')
    yield Finding('ros', OK, distro or f'rclpy {_version("rclpy") or ""} from wheels')
    rmw = os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp')
    if 'fastrtps' in rmw:
        yield Finding('rmw', OK, rmw)
    else:
        yield Finding(
            'rmw', WARN, f'{rmw}: the shipped transport profile is for Fast DDS', _LARGE_MESSAGES
        )
    for name, package in (('vision_msgs', 'detections'), ('sensor_msgs_py', 'points')):
        if importlib.util.find_spec(name) is None:
            remedy = f'sudo apt install ros-{distro or "<distro>"}-{name.replace("_", "-")}'
            yield Finding(name, WARN, f'absent: no ~/{package} of that type', remedy)


def check_transport(image_bytes: int) -> Iterator[Finding]:
    """Shared memory and socket buffers against the size of the camera's images."""
    profile = os.environ.get('FASTDDS_DEFAULT_PROFILES_FILE') or os.environ.get(
        'FASTRTPS_DEFAULT_PROFILES_FILE', ''
    )
    if not profile:
        yield Finding(
            'fast dds profile',
            WARN,
            'none set: with the stock 512 KB segment most large images are lost',
            'export FASTDDS_DEFAULT_PROFILES_FILE=.../config/fastdds.xml, for the camera too',
        )
    elif not Path(profile).is_file():
        yield Finding(
            'fast dds profile', ERROR, f'{profile} does not exist', 'correct the variable'
        )
    else:
        yield Finding('fast dds profile', OK, profile)
    shm = Path('/dev/shm')
    if shm.is_dir():
        free = shutil.disk_usage(shm).free
        if free < 64 * 2**20 + 8 * image_bytes:
            yield Finding(
                'shared memory',
                ERROR,
                f'{free / 2**20:.0f} MB free in /dev/shm',
                'docker run --shm-size=1g (or --ipc=host), or remount /dev/shm larger',
            )
        else:
            yield Finding('shared memory', OK, f'{free / 2**20:.0f} MB free in /dev/shm')
    limit = Path('/proc/sys/net/core/rmem_max')
    if limit.is_file():
        size = int(limit.read_text())
        wanted = 4 * 2**20
        text = f'net.core.rmem_max is {size} bytes'
        if size < wanted:
            remedy = f'between machines: sudo sysctl -w net.core.rmem_max={wanted * 8}'
            yield Finding('socket buffers', WARN, text, remedy)
        else:
            yield Finding('socket buffers', OK, text)


def check_clock() -> Iterator[Finding]:
    """The system clock that stamps are compared with."""
    year = time.gmtime().tm_year
    if year < 2024:
        yield Finding(
            'clock', ERROR, f'the system clock says {year}', 'set it (chrony, ntp, RTC battery)'
        )
    else:
        yield Finding('clock', OK, time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime()))


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
            yield Finding(f'{stage}.weights', ERROR, str(error), 'ood weights list')
        else:
            size = path.stat().st_size / 2**20
            yield Finding(f'{stage}.weights', OK, f'{path.name}, {size:.1f} MB')


_OPENCV = ('opencv-python-headless', 'opencv-python', 'opencv-contrib-python')
_LARGE_MESSAGES = 'see its own documentation on large messages and shared memory'


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
