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
from collections.abc import Iterator
from pathlib import Path

from ood_perception.host_cpu import UNTUNED

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4  # names and values as in malloc.h
MADV_DONTNEED = 4  # as in sys/mman.h
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
    """
    Hand back once what frames do not need, after work that needed more than they do.

    Memory that was freed, and the pages of program code: most of what a start runs through, in
    PyTorch's libraries for CUDA above all, is not run again. What is comes back from the file.
    """
    if sys.platform == 'linux':
        with contextlib.suppress(AttributeError, OSError, ValueError):
            library = ctypes.CDLL(None)
            library.malloc_trim(0)
            for start, end in _code():
                library.madvise(
                    ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED
                )


def _code() -> Iterator[tuple[int, int]]:
    """First and end address of each file's code in this process that is as in the file."""
    area, code = (0, 0), False
    for line in (
        Path('/proc/self/smaps').read_text(encoding='utf-8', errors='replace').splitlines()
    ):
        key, *values = line.split()
        if not key.endswith(':'):
            first, end = key.split('-')
            area = int(first, 16), int(end, 16)
            code = values[0] == 'r-xp' and len(values) > 4 and values[4].startswith('/')
        # What was written to (a debugger's breakpoint) would be lost.
        elif code and key == 'Anonymous:' and values[0] == '0':
            yield area
