# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A bag through the node over real DDS: the node in its own process, its outputs in another bag.

The round trip of a frame is measured by one clock: camera_info is published with the image and
recorded when it arrives, the outputs too, and equal stamps belong together.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ood_perception.bags import reading as bags
from ood_perception.bags.live_run import LiveRun
from ood_perception.frames.decode import BadImage, decode, stamp_ns
from ood_perception.ros.tools.domain import private_domain
from ood_perception.ros.tools.playing import play
from ood_perception.ros.tools.recording import record

NODE = 'ood'
OUTPUTS = {
    f'/{NODE}/heatmap': 'sensor_msgs/msg/Image',
    f'/{NODE}/instances': 'sensor_msgs/msg/Image',
    f'/{NODE}/detections_json': 'std_msgs/msg/String',
    '/diagnostics': 'diagnostic_msgs/msg/DiagnosticArray',
}
"""Topics of the node that are recorded, and their types."""

START_TIMEOUT = 240.0  # seconds for the node to load and warm up


class LiveError(RuntimeError):
    """The node did not start, or died; the text ends with its last lines."""


def run_live(
    bag: str | Path,
    output: str | Path,
    *,
    profile: str = 'compact',
    device: str = 'auto',
    image_topic: str = '/camera/image_raw',
    rate: float = 1.0,
    on_progress: Callable[[float, float], None] | None = None,
    parameters: Sequence[str] = (),
    lockstep: bool = False,
) -> LiveRun:
    """
    Play a bag to a node of its own and record what the node publishes.

    Args:
        bag: rosbag2 folder with the images and their camera_info.
        output: folder to be made; gets the bag `recorded` and `node.log`.
        image_topic: topic of the images in the bag; a `/compressed` ending selects JPEG.
        parameters: more of the node's parameters, each ``name:=value``.
        lockstep: send each image after the outputs of the one before, instead of by the clock;
            for pictures, which have no rate, so that none is dropped.

    Raises:
        LiveError: the node did not start or died; the message holds its last lines.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    raw = image_topic.removesuffix('/compressed')
    transport = 'compressed' if image_topic.endswith('/compressed') else 'raw'
    info = raw.rsplit('/', 1)[0] + '/camera_info'
    played = {topic.name for topic in bags.topics(bag)}
    topics = [image_topic, *([info] if info in played else [])]
    height, width = _frame_size(bag, image_topic)
    settings = [
        f'profile:={profile}',
        f'device:={device}',
        f'image_transport:={transport}',
        f'warm_up_size:=[{width}, {height}]',
        *parameters,
    ]
    recorded = output / 'recorded'
    types = OUTPUTS | ({info: 'sensor_msgs/msg/CameraInfo'} if info in played else {})
    stop, ready = threading.Event(), threading.Event()
    with private_domain(), node_process(settings, raw, output / 'node.log') as process:
        failure: list[Exception] = []
        counts: dict[str, int] = {}

        def follow(done: dict[str, int]) -> bool:
            counts.update(done)
            return False

        def keep() -> None:
            try:
                record(recorded, list(types), follow, types=types, stop=stop, ready=ready)
            except Exception as error:
                failure.append(error)
                ready.set()

        recorder = threading.Thread(target=keep, name='record', daemon=True)
        recorder.start()
        ready.wait(30)
        watcher = threading.Event()
        watch = threading.Thread(target=_watch, args=(process, watcher), daemon=True)
        watch.start()
        turn = _Turn(image_topic, counts, watcher) if lockstep else None
        begin = time.monotonic()
        try:
            sent = play(
                bag,
                topics=topics,
                rate=rate,
                wait_for=[image_topic],
                wait_timeout=START_TIMEOUT,
                stop=watcher,
                on_progress=on_progress,
                hold=turn,
            )
            if turn is not None:
                turn(image_topic)
        except bags.BagError as error:
            raise LiveError(f'{error}\n{_tail(output / "node.log")}') from error
        finally:
            died = process.poll() is not None
            time.sleep(1.0)  # what is still on its way
            stop.set()
            recorder.join(10)
            watcher.set()
        if failure:
            raise failure[0]
        if died:
            raise LiveError(f'the node died while frames were sent\n{_tail(output / "node.log")}')
    run = LiveRun(recorded, sent[image_topic], time.monotonic() - begin, log=output / 'node.log')
    _read(run, info, recorded)
    return run


class _Turn:
    """Waits before each image until the node has answered those before it."""

    PATIENCE = 60.0  # seconds; a new size may be compiled meanwhile

    def __init__(self, topic: str, counts: dict[str, int], stop: threading.Event) -> None:
        self.topic, self.counts, self.stop = topic, counts, stop
        self.sent = 0

    def __call__(self, topic: str) -> None:
        if topic != self.topic:
            return
        end = time.monotonic() + self.PATIENCE
        while self._answered() < self.sent and time.monotonic() < end:
            if self.stop.wait(0.02):
                return
        # What the node refused is never answered; it is not waited for again.
        self.sent = min(self.sent, self._answered()) + 1

    def _answered(self) -> int:
        return min((self.counts.get(name, 0) for name in OUTPUTS), default=0)


def _read(run: LiveRun, info: str, recorded: Path) -> None:
    """Take from the recorded bag when frames were sent and answered, and by which engine."""
    present = {topic.name for topic in bags.topics(recorded) if topic.count}

    def messages(topic: str) -> Iterable[tuple[int, Any]]:
        return bags.read_topic(recorded, topic) if topic in present else ()

    for received, message in messages(info):
        run.sent_ns[stamp_ns(message.header)] = received
    for topic in (f'/{NODE}/heatmap', f'/{NODE}/instances'):
        for received, message in messages(topic):
            stamp = stamp_ns(message.header)
            run.received_ns[stamp] = max(received, run.received_ns.get(stamp, 0))
    if run.sent_ns and run.received_ns:
        run.seconds = (max(run.received_ns.values()) - min(run.sent_ns.values())) / 1e9
    for _, message in messages('/diagnostics'):
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            if 'engine' in values:
                run.engine, run.device = values['engine'], values.get('device', '')


def _frame_size(bag: str | Path, topic: str) -> tuple[int, int]:
    why = 'there is none'
    for _, message in bags.read_topic(bag, topic, problem=lambda _: None):
        try:
            height, width = decode(message).shape[:2]
            return height, width
        except BadImage as error:  # the node leaves it out
            why = str(error)
    raise bags.BagError(f'{bag}: no image of {topic} could be used ({why})')


@contextlib.contextmanager
def node_process(
    settings: Sequence[str], image: str, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node with parameters ``name:=value`` on an image topic, and its log in a file."""
    command = [sys.executable, '-m', 'ood_perception.ros.main', '--ros-args']
    command += ['-r', f'image:={image}', *(word for s in settings for word in ('-p', s))]
    with log.open('wb') as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _watch(process: subprocess.Popen[bytes], done: threading.Event) -> None:
    """End the replay when the node is gone."""
    while not done.wait(0.2):
        if process.poll() is not None:
            done.set()


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors='replace').splitlines() if log.is_file() else []
    return '\n'.join(text[-lines:])
