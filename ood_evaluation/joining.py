# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Bags as frames: messages grouped by header stamp, outputs joined to images and labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ood_evaluation.frame import Frame
from ood_evaluation.labels import LabelFolder, LabelValues, name_stamps
from ood_perception.bags import reading as bags
from ood_perception.detections import confidence_of
from ood_perception.frames.decode import BadImage, decode, stamp_ns, stored_values
from ood_perception.frames.depth import depth_metres
from ood_perception.frames.intensity import Intensity

WINDOW = 64
"""Stamps that may be incomplete at a time before the oldest is taken as it is."""

Group = tuple[int, dict[str, Any]]


@dataclass(frozen=True)
class Topics:
    """Names of topics; '' = none."""

    image: str = '/camera/image_raw'  # the camera's, in the bag of the source
    anomaly: str = '/labels/anomaly'  # labels 0, 1, 255 as mono8, in the bag of the source
    instances: str = '/labels/instances'  # true ids as mono16, in the bag of the source
    # the node whose ``heatmap``, ``score``, ``instances`` and ``detections_json`` are read in the
    # bag of outputs
    node: str = '/ood'
    # registered depth image, 16UC1 (mm) or 32FC1 (m) of the size of the labels, in the bag of the
    # source; for the breakdown by distance
    depth: str = '/camera/depth/image_raw'


@dataclass(frozen=True)
class Recording:
    """A bag with a camera's images and, in it or in a folder, their labels."""

    path: str | Path
    topics: Topics = Topics()
    labels: LabelFolder | None = None  # of a folder, instead of those in the bag
    # meaning of the label values in the bag
    values: LabelValues = field(default_factory=LabelValues)
    # (low, high) of images of more than 8 bits, None = estimated and held
    intensity: tuple[float, float] | None = None

    def asked(self) -> list[str]:
        """Topics of images, labels and depth to read; a bag without the last two is no problem."""
        topics, have = self.topics, {t.name for t in bags.topics(self.path) if t.count}
        labels = [] if self.labels is not None else [topics.anomaly, topics.instances]
        return [topics.image, *(n for n in (*labels, topics.depth) if n in have)]

    def frame(
        self,
        stamp: int,
        messages: dict[str, Any],
        problems: Counter[str],
        stream: str = '',
        intensity: Intensity | None = None,
    ) -> Frame:
        """Frame of messages by topic, with image, labels and distances only."""
        frame, topics = Frame(stamp, stream), self.topics
        image = messages.get(topics.image)
        if image is not None:
            frame.image = lambda: decode(image, warn=_once(problems), intensity=intensity)
        anomaly = _read(stored_values, messages.get(topics.anomaly), problems)
        if anomaly is not None and anomaly.ndim == 2 and anomaly.dtype.kind == 'u':
            frame.anomaly = self.values(anomaly, topics.anomaly)
        elif anomaly is not None:
            problems[f'{topics.anomaly}: labels need one whole number a pixel'] += 1
        frame.truth = _read(stored_values, messages.get(topics.instances), problems)
        frame.distance = _read(depth_metres, messages.get(topics.depth), problems)
        if self.labels is not None and image is not None:
            self.labels.fill(frame, problems)
        return frame

    def finish(self, problems: Counter[str]) -> None:
        """Name what did not match, once all images were seen."""
        (self.labels or self.values).finish(problems)  # a folder finishes the values they share


def grouped(
    path: str | Path, topics: list[str], problems: Counter[str], image: str = ''
) -> Iterator[Group]:
    """
    Messages of some topics by header stamp, in ascending order of stamps.

    Images are never lost to their stamps: those that are zero, or not later than the one before,
    are keyed by the time at which they were recorded, which is told.

    Args:
        topics: which; those that the bag lacks are named in `problems`.
        image: the topic whose messages must all be kept, '' = none.

    Yields:
        Stamp in ns, and the messages by topic; a topic may be missing.

    Raises:
        BagError: the bag cannot be opened.
    """
    with bags.Bag(path) as reader:
        if reader.damage:
            problems[reader.damage] += 1
        chosen = [c for c in reader.connections if c.topic in topics and c.msgcount]
        present = {c.topic for c in chosen}
        for name in topics:
            if name not in present:
                problems[f'no messages on {name}'] += 1
        if not chosen:
            return
        store = bags.typestore()
        groups = _Groups(len(present), image, problems)
        read: Counter[str] = Counter()
        try:
            for connection, written, raw in reader.messages(connections=chosen):
                read[connection.topic] += 1
                try:
                    message = bags.deserialized(store, connection, raw)
                    stamp = _stamp(message)
                except (ValueError, KeyError) as error:
                    problems[f'{connection.topic}: {error}'] += 1
                    continue
                yield from groups.add(connection.topic, stamp, written, message)
        except bags.BagError as error:
            problems[str(error)] += 1
        yield from groups.rest()
        for connection in chosen:
            if (got := read[connection.topic]) < connection.msgcount:
                lost = connection.msgcount - got
                problems[f'messages on {connection.topic} that could not be read'] += lost


class _Groups:
    """Messages that wait for those of the same stamp on other topics."""

    def __init__(self, topics: int, image: str, problems: Counter[str]) -> None:
        self.topics, self.image, self.problems = topics, image, problems
        self.waiting: dict[int, dict[str, Any]] = {}
        self.done = -1

    def add(self, topic: str, stamp: int, written: int, message: Any) -> Iterator[Group]:
        """Put a message into its group; yields the groups that are complete by that."""
        if stamp == 0:
            self.problems[f'{topic}: stamp 0, the time of recording is taken'] += 1
            stamp = written
        if topic == self.image and (stamp <= self.done or topic in self.waiting.get(stamp, {})):
            self.problems[f'{topic}: repeated stamp, the time of recording is taken'] += 1
            stamp = max(written, self.done + 1)
            while topic in self.waiting.get(stamp, {}):
                stamp += 1
        if stamp <= self.done:
            self.problems['stamps that went back'] += 1
            return
        self.waiting.setdefault(stamp, {})[topic] = message
        while self.waiting:
            oldest = min(self.waiting)
            if len(self.waiting[oldest]) < self.topics and len(self.waiting) <= WINDOW:
                break
            yield oldest, self.waiting.pop(oldest)
            self.done = oldest

    def rest(self) -> Iterator[Group]:
        """Yield what still waits."""
        for stamp in sorted(self.waiting):
            yield stamp, self.waiting[stamp]


def join(outputs: str | Path, source: Recording, problems: Counter[str]) -> Iterator[Frame]:
    """
    Frames of a recorded run: the node's outputs with images and labels of the same stamp.

    Raises:
        BagError: a bag cannot be opened.
    """
    topics = source.topics
    names = [f'{topics.node}/{n}' for n in ('heatmap', 'score', 'instances', 'detections_json')]
    given = {t.name for t in bags.topics(outputs) if t.count}
    wanted = [name for name in names if name in given or name.endswith(('heatmap', 'instances'))]
    asked = source.asked()
    results = grouped(outputs, wanted, problems)
    result = next(results, None)
    foreign, unlabelled = [], []
    for stamp, messages in grouped(source.path, asked, problems, topics.image):
        while result is not None and result[0] < stamp:
            foreign.append(result[0])
            result = next(results, None)
        if result is None or result[0] != stamp:
            if source.labels is not None and topics.image in messages:
                source.labels.saw(stamp)
            continue
        frame = source.frame(stamp, messages, problems)
        if topics.anomaly in asked and topics.anomaly not in messages:
            unlabelled.append(stamp)
        yield _with_outputs(frame, result[1], topics, problems)
        result = next(results, None)
    while result is not None:
        foreign.append(result[0])
        result = next(results, None)
    name_stamps(foreign, 'outputs whose stamp no image has', problems)
    name_stamps(unlabelled, 'frames whose stamp no label has', problems)
    source.finish(problems)


def _once(problems: Counter[str]) -> Callable[[str], None]:
    def warn(text: str) -> None:
        problems[text] = 1

    return warn


def _with_outputs(
    frame: Frame, found: dict[str, Any], topics: Topics, problems: Counter[str]
) -> Frame:
    for name in ('heatmap', 'score', 'instances'):
        setattr(frame, name, _read(stored_values, found.get(f'{topics.node}/{name}'), problems))
    text = found.get(f'{topics.node}/detections_json')
    if text is not None:
        rows = json.loads(text.data)['detections']
        frame.confidences = {int(row['id']): confidence_of(row) for row in rows}
    return frame


def _read(how: Callable[[Any], Any], message: Any, problems: Counter[str]) -> Any:
    """Pixels of an image's message; None where there is none, or none that can be read."""
    try:
        return None if message is None else how(message)
    except BadImage as error:
        problems[str(error)] += 1
        return None


def _stamp(message: Any) -> int:
    if hasattr(message, 'header'):
        return stamp_ns(message.header)
    stamp = json.loads(message.data)['header']['stamp']
    return int(stamp['sec']) * 10**9 + int(stamp['nanosec'])
