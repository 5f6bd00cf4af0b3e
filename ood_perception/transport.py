# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped settings of Fast DDS, which the node applies and `ood doctor` names."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def transport_profile() -> Path | None:
    """Path of the shipped ``config/fastdds.xml``, or None when it was not installed."""
    folders = [Path(__file__).resolve().parents[1] / 'config']
    for prefix in [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]:
        folders += [Path(prefix) / 'share' / 'ood_perception' / 'config'] if prefix else []
    for folder in folders:
        if (folder / 'fastdds.xml').is_file():
            return folder / 'fastdds.xml'
    return None
