# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Evaluation of bags.

*Offline*: every frame of a bag through a pipeline in this process; deterministic, nothing dropped.
*Live*: the bag is played over DDS at its own rate to a node
(:mod:`ood_perception.ros.tools.live`), with what that brings: drops, latency, age; the recorded
outputs are joined to the labels by stamp.
*Many*: shards (whole bags, since tracks and flicker live through time) in processes, their counts
merged. Statistics are integer counts, and sums that are rounded once, so the figures do not depend
on how many workers there were, which died, or which was first.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ood_evaluation.evaluator import Evaluation, Evaluator, Frame
from ood_evaluation.joining import Recording, grouped, join
from ood_perception.bags import reading as bags
from ood_perception.bags import writing
from ood_perception.bags.files import shown
from ood_perception.bags.live_run import LiveRun
from ood_perception.detections import CLASS_ID
from ood_perception.frames.intensity import Intensity

if TYPE_CHECKING:
    from ood_perception.pipeline import Pipeline

Shard = TypeVar('Shard')


def evaluate_live(
    run: LiveRun,
    source: Recording,
    profile: str = 'compact',
    *,
    track: str = '',
    zones: Sequence[str] = (),
) -> Evaluation:
    """
    Evaluate what a node published during a replay.

    `track` and `zones` are those of :func:`evaluate_bag`.

    Returns:
        Its summary begins with ``profile``, ``frames_in``, ``frames_out``, ``ap``, ``fpr95``,
        ``instance_f1``, ``fps``, ``latency_ms_p50``, ``latency_ms_p95``; None where the bag has no
        labels for it. ``engine`` and ``device`` are what the node told of itself.

    Raises:
        BagError: a bag cannot be opened.
    """
    evaluator = Evaluator(profile, track=track, zones=zones)
    for frame in join(run.bag, source, evaluator.problems):
        if frame.stamp_ns in run.sent_ns and frame.stamp_ns in run.received_ns:
            lag = run.received_ns[frame.stamp_ns] - run.sent_ns[frame.stamp_ns]
            frame.latency_ms = lag / 1e6
        evaluator.update(frame)
    found = _evaluation(evaluator, profile, run.frames_in, run.seconds, 'live')
    if run.engine:
        found.summary.update(engine=run.engine, device=run.device)
    return found


def evaluate_bag(
    pipeline: Pipeline,
    source: Recording,
    *,
    track: str = '',
    mode: str = 'streaming',
    limit: int = 0,
    write: str | Path | None = None,
    zones: Sequence[str] = (),
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """
    Evaluate a pipeline on every frame of a bag, in this process; twice the same is the same twice.

    Args:
        pipeline: to be evaluated; it is reset first.
        source: the bag and, where there are any, its labels.
        track: 'anomaly' or 'obstacle' for component metrics too.
        mode: of the pixel metrics.
        limit: most frames, 0 = all.
        write: bag to be made with all outputs, None for none.
        zones: parts of the images that do not count, as in `frames.zones`.
        on_progress: is told the number of frames done.

    Raises:
        BagError: a bag cannot be opened or written.
    """
    evaluator = Evaluator(pipeline.profile.name, mode, track, zones=zones)
    frames: Any = bag_frames(pipeline, source, evaluator.problems)
    if limit:
        frames = itertools.islice(frames, limit)
    if write is not None:
        frames = written(write, frames)
    begin = time.monotonic()
    for frame in frames:
        evaluator.update(frame)
        on_progress(evaluator.frames)
    seconds = time.monotonic() - begin
    seen = evaluator.frames + evaluator.problems['frames without a usable image']
    return _evaluation(evaluator, pipeline.profile.name, seen, seconds, 'offline')


def bag_frames(
    pipeline: Pipeline, source: Recording, problems: Counter[str], stream: str = ''
) -> Iterator[Frame]:
    """
    Frames of a bag with a pipeline's outputs; those without a usable image are counted.

    The sequence is named `stream`, '' = as the bag.

    Raises:
        BagError: the bag cannot be opened, has no images, or not one that is usable.
    """
    path, image = source.path, source.topics.image
    have = {t.name for t in bags.topics(path) if t.count}
    if image not in have:
        raise bags.BagError(
            f'{path} has no messages on {image!r}; '
            f'it has {", ".join(sorted(have)) or "no messages at all"}'
        )
    stream = stream or shown(Path(path).stem)
    pipeline.reset(stream)
    mapping = Intensity(source.intensity)
    count = 0
    for stamp, messages in grouped(path, source.asked(), problems, image):
        if image not in messages:
            problems[f'{", ".join(sorted(messages))}: stamps that no image has'] += 1
            continue
        frame = source.frame(stamp, messages, problems, stream, mapping)
        if predicted(pipeline, frame, problems):
            count += 1
            yield frame
    if not count:
        why = '; '.join(problems) or 'it is empty'
        raise bags.BagError(f'{path}: not one image of {image} could be used ({why})')
    source.finish(problems)


def predicted(pipeline: Pipeline, frame: Frame, problems: Counter[str]) -> bool:
    """Fill in what the pipeline says to a frame's image; False where there is no usable one."""
    try:
        if frame.image is None:
            raise ValueError('no image')
        image = frame.image()
    except (ValueError, OSError) as error:
        problems['frames without a usable image'] += 1
        problems[f'image: {error}'] += 1
        return False
    begin = time.monotonic()
    wants = ('score', 'heatmap', 'instances')
    result = pipeline([image], [frame.stream], wants=wants, stamps=[frame.stamp_ns])[0]
    frame.latency_ms = (time.monotonic() - begin) * 1e3
    frame.score, frame.heatmap, frame.instances = result.score, result.heatmap, result.instances
    if result.ids is not None and result.confidences is not None:
        pairs = zip(result.ids.tolist(), result.confidences.tolist(), strict=True)
        frame.confidences = {int(i): float(s) for i, s in pairs}
    frame.image = lambda: image
    return True


def written(path: str | Path, frames: Iterator[Frame], node: str = '/ood') -> Iterator[Frame]:
    """
    Pass frames on and write their outputs under the topics that the node would use.

    Raises:
        BagError: the path exists already.
    """
    with writing.open_writer(path) as writer:
        out = writing.MessageWriter(writer)
        for frame in frames:
            stamp = frame.stamp_ns
            header = out.header(stamp)
            for name, pixels, encoding, dtype in (
                ('heatmap', frame.heatmap, 'mono8', np.uint8),
                ('score', frame.score, '32FC1', np.float32),
                ('instances', frame.instances, 'mono16', np.uint16),
            ):
                if pixels is not None:
                    image = np.ascontiguousarray(pixels, dtype)
                    out.put(f'{node}/{name}', out.image(header, image, encoding), stamp)
            rows = [
                {'id': number, 'class_id': CLASS_ID, 'confidence': round(confidence, 4)}
                for number, confidence in (frame.confidences or {}).items()
            ]
            whole = {'sec': stamp // 10**9, 'nanosec': stamp % 10**9}
            text = json.dumps({'header': {'stamp': whole}, 'detections': rows})
            out.put(f'{node}/detections_json', out.kinds['std_msgs/msg/String'](text), stamp)
            yield frame


def _evaluation(
    evaluator: Evaluator, profile: str, sent: int, seconds: float, how: str
) -> Evaluation:
    got = evaluator.frames
    first: dict[str, Any] = {'profile': profile, 'frames_in': sent, 'frames_out': got}
    first |= dict.fromkeys(('ap', 'fpr95', 'instance_f1'))
    first['fps'] = got / seconds if seconds > 0 else None
    first |= dict.fromkeys(('latency_ms_p50', 'latency_ms_p95'))
    return evaluator.compute(**first, replay=how, dropped=sent - got)


RETRIES = 2
"""How often shards whose worker was killed are given to another."""


class WorkerError(RuntimeError):
    """A shard's worker died again and again; the text names the shard."""


def evaluate_shards(
    shards: Sequence[Shard],
    work: Callable[[Shard], Evaluator],
    workers: int = 2,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluator:
    """
    Evaluate every shard and merge in the order of the shards.

    Args:
        shards: what `work`, a function of a module, takes; one or more that can be pickled.
        workers: processes; 1 = in this one.
        on_progress: is told the number of shards done.

    Raises:
        WorkerError: workers died again and again.
    """
    done: dict[int, Evaluator] = {}
    if workers == 1:
        for number, shard in enumerate(shards):
            done[number] = work(shard)
            on_progress(len(done))
    failures = 0
    while left := [i for i in range(len(shards)) if i not in done]:
        # A fresh interpreter: forking a process that has run torch can hang.
        with ProcessPoolExecutor(workers, get_context('spawn')) as pool:
            jobs = {pool.submit(work, shards[i]): i for i in left}
            try:
                for job in as_completed(jobs):
                    done[jobs[job]] = job.result()
                    on_progress(len(done))
            except BrokenProcessPool as error:
                failures += 1
                if failures > RETRIES:
                    lost = [str(shards[i]) for i in left if i not in done]
                    raise WorkerError(
                        f'workers died {failures} times; not evaluated: {", ".join(lost[:5])}'
                    ) from error
    return functools.reduce(Evaluator.merge, (done[i] for i in range(len(shards))))
