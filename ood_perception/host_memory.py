# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Host memory of a process that computes frames for hours.

The C library hands every freed map of some 100 kB and more back to the system at once, and each
new frame then pays for zeroed pages again: a seventh of the processor's time in the compact
network. A process that works frame by frame keeps what it has freed instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from ood_perception.host_cpu import UNTUNED

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4  # names and values as in malloc.h
KEPT = 512 * 1024 * 1024  # bytes free at the heap's end that are kept for the next frame


def keep_freed_memory() -> bool:
    """
    Let the C library keep freed memory for the next frame, for the whole process.

    Called by the entry points (node, command line), never at import: it is the process's choice.
    False where nothing is changed: `OOD_UNTUNED=1` is in the environment, or the C library has no
    `mallopt` or refuses (macOS, musl).
    """
    if sys.platform != 'linux' or os.environ.get(UNTUNED) == '1':
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))


def return_freed_memory() -> None:
    """Hand what is free back to the system once, after work that needed more than frames do."""
    if sys.platform == 'linux':
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
