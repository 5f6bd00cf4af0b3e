# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The worker: newest frames in, results out, in a thread of its own.

A pipeline lives in one thread: the thread that built it warms it up, runs it and closes it (CUDA
graphs are tied to their thread, and a build must not stop the frames). To replace a pipeline, a
new thread builds the next one while the old one goes on, and then takes over.

Where computing leaves a processor free (on a GPU, or with fewer threads than processors), a thread
decodes the next frames meanwhile and another publishes the last ones, so the slowest of the three
sets the rate and not their sum. Where it does not, they would only stand in its way.

The executor's thread stays free to receive; `frame_processor` says what happens to a frame.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as CallTimeoutError  # the built-in one from 3.11 on
from contextlib import closing
from typing import Any

import rclpy

from ood_perception.ros import loading
from ood_perception.ros.camera_stream import Mailbox
from ood_perception.ros.fallback import Fallback
from ood_perception.ros.frame_processor import Batch, FrameProcessor
from ood_perception.ros.health import MOMENT, Health, describe
from ood_perception.ros.outputs import CameraOutputs
from ood_perception.ros.settings import Settings
from ood_perception.side_thread import SideThread

Build = Callable[[int], Any]

CALL_TIMEOUT = 5.0  # least seconds that a service waits for the frame in work
TAKE_OVER_TIMEOUT = 5.0  # seconds that a new pipeline waits for the old one's frame
EARLY = 1.5  # times what decoding took last, before a batch is computed, to decode the next one
MARGIN = 0.002  # seconds before that
HELD_BACK = 0.01  # seconds after which frames that wait for their depth are looked at again


class Meanwhile:
    """
    What happens beside the batch in work.

    With `overlap` decoding the next and publishing the last. With several `in_flight` the pipeline
    itself has threads, and what it has computed is published in another. Else there are none.
    """

    def __init__(self, overlap: bool, in_flight: int = 1) -> None:
        self.in_flight = in_flight
        self.decoder = SideThread('ood decode') if overlap and in_flight == 1 else None
        self.sender = SideThread('ood publish') if overlap or in_flight > 1 else None
        self.coming: Future[Batch] | None = None  # the batch that is being decoded
        self.sent: deque[Future[None]] = deque()  # done when a batch is published, oldest first

    def wait(self, left: int) -> None:
        """Wait until no more than so many batches are to be published; raises what one raised."""
        while len(self.sent) > left:
            self.sent.popleft().result()

    def close(self) -> None:
        """End the threads after what they are at."""
        for thread in (self.decoder, self.sender):
            if thread is not None:
                thread.close()


class Worker(FrameProcessor):
    """Process the frames of a mailbox in a thread until it is stopped."""

    def __init__(
        self,
        mailbox: Mailbox,
        outputs: dict[str, CameraOutputs],
        settings: Settings,
        health: Health,
        build: Build | None = None,
        fallback: Fallback | None = None,
    ) -> None:
        super().__init__(mailbox, outputs, settings, health, fallback or Fallback([]))
        self.error: Exception | None = None  # why the first pipeline could not be built
        self.leaves_processors = loading.leaves_processors  # tells whether to overlap
        self._build = build
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._computing: deque[float] = deque(maxlen=8)  # seconds that the last batches took
        self._decoding = 0.0  # seconds that the last frames took to decode
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._builder: threading.Thread | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread that builds the first pipeline and then works with it."""
        self._stop = threading.Event()
        self.error = None
        self.follower.start()
        self._begin(0)

    @property
    def alive(self) -> bool:
        """Whether the thread that works is there."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, timeout: float = 10.0) -> bool:
        """
        Stop after the frame in work; tells whether the threads ended within `timeout` seconds.

        A thread that is still busy ends, and gives its pipeline back, when it comes out of it.
        """
        self._stop.set()
        self.mailbox.wake()
        end = time.monotonic() + timeout
        threads = [t for t in (self._builder, self._thread, self.follower.stop()) if t is not None]
        for thread in threads:
            thread.join(max(end - time.monotonic(), 0.0))
        ended = not any(thread.is_alive() for thread in threads)
        self.pipeline = self._thread = self._builder = None
        self.busy_since, self.doing = 0.0, ''
        return ended

    def call(self, function: Callable[[], Any]) -> Any:
        """
        Run a function in the worker's thread between two frames and return its value.

        It waits for some usual frames' time, at least `CALL_TIMEOUT` seconds.

        Raises:
            TimeoutError: the worker is busy for longer; the function will not be run.
            Exception: what the function raises.
        """
        job: Future[Any] = Future()
        timeout = max(CALL_TIMEOUT, self.delay_limit())
        self._jobs.append((job, function))
        self.mailbox.wake()
        try:
            return job.result(timeout)
        except CallTimeoutError:
            if not job.cancel():
                return job.result(timeout)
            what = self.doing or 'busy with a frame'
            raise TimeoutError(f'the worker is {what}; try again later') from None

    def _begin(self, step: int) -> None:
        name, work = f'ood worker {step}', (step, self._stop)
        self._builder = threading.Thread(target=self._live, args=work, name=name, daemon=True)
        self._builder.start()

    def _live(self, step: int, stop: threading.Event) -> None:
        """Build a pipeline, work with it until it is replaced, and give it back."""
        try:
            self.doing = '' if self.pipeline is not None else 'loading the networks'
            assert self._build is not None
            pipeline = self._build(step)
        except Exception as error:
            self.doing = ''
            if not stop.is_set():
                self._refused(step, error)
            return
        try:
            # One that hangs never gives its turn away; it is left behind.
            got = self._turn.acquire(timeout=TAKE_OVER_TIMEOUT)
            try:
                if stop.is_set():
                    return
                self._adopt(step, pipeline)
            finally:
                if got:
                    self._turn.release()
                else:
                    self._turn = threading.Lock()
            self._serve(pipeline, stop)
        finally:
            pipeline.close()
            del pipeline
            gc.collect()

    def _adopt(self, step: int, pipeline: Any) -> None:
        memory = loading.memory_of(pipeline)
        if self.learning and memory is not None:
            memory.start()
            self.health.report('warn', 'learning what is normal begins anew with this pipeline')
        first, reason = self.pipeline is None, self.fallback.reason
        self.pipeline, self._thread = pipeline, threading.current_thread()
        self._warm = {pipeline.network_size(*size) for size in self.sizes.values()}
        self.doing, self.busy_since = '', 0.0
        pause = self.fallback.adopted(step, time.monotonic())
        self.health.clear('pipeline')
        if step:
            wanted, now = self.fallback.steps[0], self.fallback.steps[step]
            self.health.warn(
                'fallback',
                f'running with {now}, as {wanted} kept failing ({reason})',
                f'it is tried again in {pause:.0f} s; see the log for its error',
            )
        elif not first:
            self.health.clear('fallback')

    def _refused(self, step: int, error: Exception) -> None:
        reason = describe(error)
        if self.pipeline is None:
            self.error = error
            return
        pause = self.fallback.refused(step, time.monotonic(), reason)
        what = self.fallback.steps[step]
        text = f'{what} could not be loaded ({reason})'
        if self.fallback.lasting:
            remedy = f'it is tried again in {pause:.0f} s' if pause else 'a simpler one is tried'
            self.health.error('pipeline', text, remedy)
        else:
            self.health.report('warn', f'{text}; trying again in {pause:.0f} s')

    def _serve(self, pipeline: Any, stop: threading.Event) -> None:
        """Compute one batch after another; decode and publish meanwhile where that pays."""
        several = self.settings.frames_in_flight if pipeline.device.type == 'cpu' else 1
        with closing(Meanwhile(self.leaves_processors(pipeline), several)) as meanwhile:
            while not stop.is_set() and self.pipeline is pipeline:
                try:
                    batch = self._next(meanwhile)
                    with self._turn:
                        if stop.is_set() or self.pipeline is not pipeline:
                            return
                        self._between_frames(meanwhile)
                        if batch.frames:
                            self._work(batch, meanwhile)
                except Exception as error:
                    if not rclpy.ok() or stop.is_set():
                        return
                    # Nothing may end this thread; a fault here is a fault of the node's own.
                    self.health.error('worker', f'frame lost: {describe(error)}', lasts=MOMENT)
                if self.pipeline is not pipeline:
                    return  # it was given up while it hung
                self.busy_since = 0.0
                self.check_fallback()

    def _between_frames(self, meanwhile: Meanwhile) -> None:
        """Run the jobs of other threads, and let go of frames that waited for their depth."""
        if self._jobs:
            wait(meanwhile.sent)  # a job may read what they leave behind
        self._run_jobs()
        if self.publisher.waits:
            with self.publishing:
                self.publisher.flush(self.settings)

    def _work(self, batch: Batch, meanwhile: Meanwhile) -> None:
        """Compute a batch and publish it, or begin to."""
        if meanwhile.in_flight > 1 and meanwhile.sender is not None:
            begun = self.begin(batch)
            meanwhile.sent.append(
                meanwhile.sender.submit(lambda: self.publish(batch, self.finish(batch, begun)))
            )
            meanwhile.wait(meanwhile.in_flight - 1)
            return
        computed, started = threading.Event(), time.monotonic()
        if meanwhile.decoder is not None:
            meanwhile.coming = meanwhile.decoder.submit(self._decode_ahead, computed)
        try:
            results = self.compute(batch)
        finally:
            computed.set()
        self._computing.append(time.monotonic() - started)
        if meanwhile.sender is None:
            self.publish(batch, results)
            return
        meanwhile.sent.append(meanwhile.sender.submit(self.publish, batch, results))
        meanwhile.wait(1)

    def _next(self, meanwhile: Meanwhile) -> Batch:
        """Batch that was decoded meanwhile, or the next that comes; may be empty."""
        coming, meanwhile.coming = meanwhile.coming, None
        if coming is not None:
            self.busy_since = time.monotonic()
            batch = coming.result()
            if batch.frames:
                return batch
            self.busy_since = 0.0
        timeout = HELD_BACK if self.publisher.waits else 0.5
        waiting = self.mailbox.take(max(self.settings.max_batch, 1), timeout)
        self.busy_since = time.monotonic() if waiting else 0.0
        return self.decode(waiting)

    def _decode_ahead(self, computed: threading.Event) -> Batch:
        """
        Decode the newest frames shortly before the batch in work is likely computed.

        Earlier, they would have grown old when their turn comes.
        """
        usual = min(self._computing, default=0.0)
        computed.wait(max(usual - self._decoding * EARLY - MARGIN, 0.0))
        limit = max(self.settings.max_batch, 1)
        while not (waiting := self.mailbox.take_now(limit)) and not computed.wait(MARGIN):
            pass
        started = time.monotonic()
        batch = self.decode(waiting)
        if batch.frames:
            self._decoding = time.monotonic() - started
        return batch

    def check_fallback(self) -> None:
        """Begin to build another pipeline when it is time for one."""
        builder = self._builder
        loading = builder is not None and builder is not self._thread and builder.is_alive()
        step = None if loading else self.fallback.due(time.monotonic())
        if step is None or self._stop.is_set():
            return
        if step and self.fallback.lasting:
            self.health.error(
                'pipeline',
                f'the pipeline keeps failing ({self.fallback.reason})',
                f'loading it with {self.fallback.steps[step]}',
            )
        self._begin(step)

    def _run_jobs(self) -> None:
        while self._jobs:
            job, function = self._jobs.popleft()
            if not job.set_running_or_notify_cancel():
                continue
            try:
                job.set_result(function())
            except Exception as error:
                job.set_exception(error)
