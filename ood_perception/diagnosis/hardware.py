# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The GPU, the Jetson board, and the clock."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from ood_perception.diagnosis.software import ERROR, OK, WARN, Finding, version

ROOT = Path('/')
"""Where the system's files lie."""

JETSON_INDEX = 'https://pypi.jetson-ai-lab.io'
"""Holds PyTorch for each JetPack and CUDA, as jp6/cu126; PyPI's wheels for ARM have no GPU."""


def check_device() -> Iterator[Finding]:
    """A GPU that torch can use."""
    import torch

    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        free, total = (b / 2**30 for b in torch.cuda.mem_get_info())
        level = OK if free > 2 else WARN
        remedy = '' if free > 2 else 'nvidia-smi shows which other programs use it; close them'
        yield Finding('device', level, f'{name}, {free:.1f} of {total:.1f} GiB free', remedy)
    elif board():
        return  # check_jetson says more
    elif (ROOT / 'dev/nvidia0').exists() or shutil.which('nvidia-smi'):
        built = torch.version.cuda
        what = f'is built for CUDA {built}' if built else 'is a build for CPUs'
        remedy = (
            'update the driver (nvidia-smi shows the CUDA that it can), or take a torch for it'
            if built
            else 'pip install --force-reinstall torch torchvision --index-url '
            'https://download.pytorch.org/whl/cu126'
        )
        text = f'an NVIDIA driver is here, but torch {torch.__version__} sees no GPU: it {what}'
        yield Finding('device', WARN, text, remedy)
    else:
        threads = torch.get_num_threads()
        text = f'no GPU; {threads} CPU threads (profile compact is made for it)'
        yield Finding('device', OK, text)


def board() -> str:
    """Name of the Jetson that this is, '' on any other machine."""
    name = _text(ROOT / 'proc/device-tree/model')
    if 'jetson' in name.lower() or 'nvidia' in name.lower():
        return name
    return 'Jetson' if (ROOT / 'etc/nv_tegra_release').is_file() else ''


def check_jetson() -> Iterator[Finding]:
    """On a Jetson: torch with its GPU, TensorRT, and the power mode."""
    name = board()
    if not name:
        return
    import torch

    release = _text(ROOT / 'etc/nv_tegra_release').partition('\n')[0].strip('# ')
    # JetPack 7 is L4T 38; 6 is 36.
    index = f'{JETSON_INDEX}/{"sbsa/cu130" if release.startswith("R38") else "jp6/cu126"}'
    yield Finding('jetson', OK, f'{name}; {release or "L4T unknown"}')
    if not torch.cuda.is_available():
        yield Finding(
            'jetson torch',
            ERROR,
            f'torch {torch.__version__} does not see the GPU',
            f'pip install --force-reinstall torch torchvision --index-url {index}',
        )
    tensorrt = version('tensorrt')
    libraries = sorted((ROOT / 'usr/lib/aarch64-linux-gnu').glob('libnvinfer.so.*'))
    if tensorrt or libraries:
        text = f'TensorRT {tensorrt or libraries[-1].name.removeprefix("libnvinfer.so.")}'
        bridge = version('torch-tensorrt')
        remedy = '' if bridge else f'pip install torch-tensorrt --index-url {index}'
        text += f', torch-tensorrt {bridge or "not installed: engine tensorrt cannot run"}'
        yield Finding('jetson tensorrt', OK if bridge else WARN, text, remedy)
    else:
        remedy = 'sudo apt install nvidia-jetpack'
        yield Finding('jetson tensorrt', WARN, 'TensorRT is not installed', remedy)
    if mode := _power_mode():
        fast = 'MAXN' in mode.upper()
        remedy = '' if fast else 'sudo nvpmodel -m 0 && sudo jetson_clocks'
        yield Finding('jetson power', OK if fast else WARN, f'power mode {mode}', remedy)


def check_clock() -> Iterator[Finding]:
    """The system clock that stamps are compared with."""
    year = time.gmtime().tm_year
    if year < 2024:
        text = f'the system clock says {year}'
        yield Finding('clock', ERROR, text, 'sudo timedatectl set-ntp true, or its RTC battery')
    else:
        yield Finding('clock', OK, time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime()))


def _power_mode() -> str:
    tool = shutil.which('nvpmodel')
    if tool is None:
        return ''
    try:
        done = subprocess.run(
            [tool, '-q'], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ''
    lines = [line for line in done.stdout.splitlines() if 'Power Mode' in line]
    return lines[0].partition(':')[2].strip() if lines else ''


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8', errors='replace').strip('\0 \n')
    except OSError:
        return ''
