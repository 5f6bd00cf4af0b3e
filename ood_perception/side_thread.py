# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A thread that does one job after another beside the thread that gives them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class SideThread:
    """
    Run functions in the order in which they are given.

    Unlike those of `concurrent.futures`, its thread does not keep a process from ending: a call
    that hangs in a driver or in the middleware is left behind.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._jobs = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a function called; the future has its value or its exception."""
        future: Future[Any] = Future()
        self._jobs.put((future, lambda: function(*arguments)))
        return future

    def close(self) -> None:
        """End the thread after the jobs that it was given, and wait for it."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function = job
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
