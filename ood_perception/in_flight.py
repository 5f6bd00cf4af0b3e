# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Several frames in work at once: networks side by side, everything that remembers in order.

On a CPU two networks on one core each take less time than one after the other on both cores, whose
threads wait for each other after every layer; and what comes behind the network, which has work
for one core, leaves no core idle.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from ood_perception.side_thread import SideThread

Work = TypeVar('Work')
Value = TypeVar('Value')


class Turn:
    """Place of one caller in a row; as a context, it is given up at the end."""

    def __init__(self, row: Row, number: int) -> None:
        self._row, self.number = row, number

    def wait(self) -> None:
        """Return when everybody who came before is through."""
        self._row.wait(self.number)

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *error: object) -> None:
        self._row.leave(self.number)


class Row:
    """
    Callers that come through one at a time, in the order in which they drew their turn.

    With `workers` above 1, :meth:`submit` runs calls in so many threads; with 1 in the caller's.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f'in_flight: expected 1 or more, got {workers}')
        self._threads = [SideThread(f'ood frame {i}') for i in range(workers) if workers > 1]
        self._changed = threading.Condition()
        self._drawn = self._next = 0
        self._closed = False
        self._left: set[int] = set()  # turns given up before it was their time

    def draw(self) -> Turn:
        """Take the next turn."""
        with self._changed:
            self._drawn += 1
            return Turn(self, self._drawn - 1)

    def wait(self, number: int) -> None:
        """Wait for the turn of this number; see :class:`Turn`."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == number)

    def leave(self, number: int) -> None:
        """Give up the turn of this number, now or before its time."""
        with self._changed:
            self._left.add(number)
            while self._next in self._left:
                self._left.remove(self._next)
                self._next += 1
            self._changed.notify_all()

    def submit(self, function: Callable[[Turn], Value]) -> Future[Value]:
        """Run a function with the next turn, which it has given up when it is done."""

        def run(turn: Turn) -> Value:
            with turn:
                return function(turn)

        if self._threads:
            with self._changed:  # each thread gets its turns in order, or one waits for its next
                if self._closed:
                    raise RuntimeError('submitted to a pipeline that was closed')
                turn = self.draw()
                return self._threads[turn.number % len(self._threads)].submit(run, turn)
        try:
            return ready(run(self.draw()))
        except Exception as error:
            failed: Future[Value] = Future()
            failed.set_exception(error)
            return failed

    def close(self) -> None:
        """Wait for what was submitted, and end the threads."""
        self._closed = True
        for thread in self._threads:
            thread.close()


class Places:
    """Room for so many at once, or for one who is alone."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = threading.Semaphore(count)
        self._gathering = threading.Lock()  # two who took half of the places each would wait

    @contextmanager
    def one(self) -> Iterator[None]:
        """Enter beside others."""
        with self._free:
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Enter when nobody else is in."""
        with self._gathering:
            for _ in range(self._count):
                self._free.acquire()
            try:
                yield
            finally:
                self._free.release(self._count)


def ready(value: Value) -> Future[Value]:
    """Return a future that has its value."""
    done: Future[Value] = Future()
    done.set_result(value)
    return done


def ahead(
    items: Iterable[Work], begin: Callable[[Work], Future[Any]], count: int
) -> Iterator[tuple[Work, Any]]:
    """
    Items with what was computed of them, in order; `count` of them are in work meanwhile.

    `begin` starts the work on an item. What an item's work raises is raised in its place.
    """
    begun: deque[tuple[Work, Future[Any]]] = deque()
    for item in items:
        begun.append((item, begin(item)))
        if len(begun) >= count:
            first, future = begun.popleft()
            yield first, future.result()
    for first, future in begun:
        yield first, future.result()
