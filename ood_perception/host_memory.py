# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Host memory of a process that computes frames for hours.

The C library hands every freed map of some 100 kB and more back to the system at once, and each
new frame then pays for zeroed pages again: a seventh of the processor's time in the compact
network. A process that works frame by frame keeps what it has freed instead.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
"""Names and values as in malloc.h."""

KEPT = 512 * 1024 * 1024
"""Bytes free at the heap's end that are kept for the next frame."""


def keep_freed_memory() -> bool:
    """
    Let the C library keep freed memory for the next frame, for the whole process.

    Called by the entry points (node, command line), never at import: it is the process's choice.

    Returns:
        False where the C library has no `mallopt` or refuses (macOS, musl): nothing is changed.

    """
    if sys.platform != 'linux':
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
