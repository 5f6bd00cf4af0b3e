# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What this machine's CPU multiplies fast, and how its cores are shared."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

SPIN = '20000'
"""Rounds: enough for the gap between two operations, not for that between two frames."""


def spin_briefly() -> None:
    """
    Let the helper threads of OpenMP wait awake for a moment only; call it before torch is there.

    They wait awake for milliseconds otherwise, on the core where OpenVINO's threads want to run.
    Asleep at once is no better: waking them takes as long as a small operation. What the
    environment says already stays as it is.
    """
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', SPIN)


def has_bfloat16_tiles() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in tiles (AMX); False where it is not known."""
    return 'amx_bf16' in _flags()


def has_int8_instructions() -> bool:
    """Whether the CPU multiplies int8 faster than float32 (VNNI); False where it is not known."""
    return 'vnni' in _flags()


def _flags() -> str:
    try:
        return Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return ''


def in_own_thread(function: Callable[[], Any]) -> Any:
    """
    Call a function in a thread of its own that ends with it.

    Each thread that has once computed keeps helpers of OpenMP for good. With more of them than
    cores OpenMP puts them to sleep between any two operations, and the worker waits for them to
    wake (`benchmarks/node_overhead.py`).
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    # Not an executor's, whose end waits for the function: Ctrl-C must end what loads, too.
    threading.Thread(target=run, name='ood loader', daemon=True).start()
    return future.result()
