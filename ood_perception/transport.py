# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped settings of Fast DDS, which the node applies and `ood doctor` names."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def profile_variables() -> tuple[str, str]:
    """
    Environment variables that name a Fast DDS profile: the one that is read, and the other.

    Fast DDS 3 warns about the name that 2 needs.
    """
    names = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
    old = os.environ.get('ROS_DISTRO') in ('humble', 'iron', 'jazzy')
    return names[::-1] if old else names


def transport_profile() -> Path | None:
    """Path of the shipped ``config/fastdds.xml``, or None when it was not installed."""
    folders = [Path(__file__).resolve().parents[1] / 'config']
    for prefix in [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]:
        folders += [Path(prefix) / 'share' / 'ood_perception' / 'config'] if prefix else []
    for folder in folders:
        if (folder / 'fastdds.xml').is_file():
            return folder / 'fastdds.xml'
    return None
