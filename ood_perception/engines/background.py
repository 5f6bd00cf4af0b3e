# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Jobs in a background thread, one after the other."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

import torch

from ood_perception.host_memory import return_freed_memory

log = logging.getLogger(__name__)

# Seconds after which Python hands over between threads while a job runs. An export is Python code
# for seconds. At the default of 0.005 s a frame, which asks for the interpreter some two hundred
# times, would take a second beside it.
SWITCH_INTERVAL = 0.0005


class Background:
    """Run jobs one after the other in a thread that ends when there are none."""

    def __init__(self) -> None:
        self._jobs: dict[str, Callable[[], object]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        return self._thread is not None

    def add(self, name: str, job: Callable[[], object]) -> None:
        """Queue a job, unless one of this name runs or waits."""
        with self._lock:
            self._jobs.setdefault(name, job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name='ood engine', daemon=True)
                self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Wait for all jobs; False when they are not done within `timeout` seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def clear(self) -> None:
        """Forget the jobs that wait; the one that runs goes on."""
        with self._lock:
            for name in list(self._jobs)[1:]:
                del self._jobs[name]

    def _run(self) -> None:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        try:
            while True:
                with self._lock:
                    if not self._jobs:
                        self._thread = None
                        return
                    name, job = next(iter(self._jobs.items()))
                try:
                    with torch.inference_mode():
                        job()
                except Exception:
                    log.exception('%s', name)
                with self._lock:
                    self._jobs.pop(name, None)
        finally:
            sys.setswitchinterval(interval)
            return_freed_memory()
