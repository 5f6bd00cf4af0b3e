# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The worker with a real pipeline: a stage that fails for one camera, an engine that fails."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='needs rclpy')
from node_helpers import image, picture, process
from node_helpers import write_profile as tiny

from ood_perception.engines import ENGINES, faults
from ood_perception.engines.eager import EagerEngine
from ood_perception.masks.boxes import Boxes
from ood_perception.pipeline import Pipeline
from ood_perception.ros import diagnostics
from ood_perception.ros.camera_stream import CameraStream, Mailbox, PendingFrame
from ood_perception.ros.health import Health, Level
from ood_perception.ros.settings import Settings
from ood_perception.ros.watchdog import Watchdog
from ood_perception.ros.worker import Worker

CAMERAS = 'abc'
BROKEN = 200
"""Grey of the frames that the mask model fails on."""


class Outputs:
    """Stands for subscribers that want objects; collects what would be sent."""

    class _Topic:
        wanted = False

        def look(self, *rest):
            pass

    overlay = state = _Topic()
    points_wanted = rows_wanted = False

    def __init__(self):
        self.sent = []

    def wants(self):
        return {'heatmap', 'instances'}

    def publish_maps(self, header, size, result, *rest):
        self.sent.append(result)

    def publish_objects(self, *rest):
        pass


def one_box(images: torch.Tensor, score: torch.Tensor, probability: torch.Tensor) -> Boxes:
    count = len(score)
    box = torch.tensor([10.0, 10.0, 50.0, 50.0]).expand(count, 1, 4)
    return Boxes(box, torch.full((count, 1), 0.9), torch.ones(count, 1, dtype=torch.bool))


@pytest.fixture
def worker(ros, tmp_path):
    """A worker, not started, whose pipeline outlines one box and counts what each camera fed."""
    streams = [CameraStream(name) for name in CAMERAS]
    worker = Worker(
        Mailbox(streams),
        {name: Outputs() for name in CAMERAS},
        Settings(),
        Health(lambda level, text: None),
    )
    profile = tiny(
        tmp_path,
        tracking={'enabled': True},
        score={'name': 'novelty', 'options': {'capacity': 64}},
    )
    worker.pipeline = pipeline = Pipeline.from_profile(profile, 'cpu', 'eager', live=True)
    pipeline.outliner.prompts = one_box
    worker.scored, worker.tracked = Counter(), Counter()
    score, outline = pipeline.score.forward, pipeline.outliner.mask_model
    settle = pipeline._trackers.settle

    def counted(output, size, streams):
        worker.scored.update(streams)
        return score(output, size, streams)

    def breakable(pixels, probability, boxes):
        if (pixels[:, 0, 0, 0] == BROKEN).any():
            raise RuntimeError('masks broke')
        return outline(pixels, probability, boxes)

    def counted_settle(result, seen, stream, stamp):
        worker.tracked.update([stream])
        return settle(result, seen, stream, stamp)

    pipeline.score.forward = counted
    pipeline.outliner.mask_model, pipeline._trackers.settle = breakable, counted_settle
    worker.frames = 0
    yield worker
    pipeline.close()


def run(worker, broken: str, sizes: str = '') -> None:
    """Process a frame of each camera; cameras in `sizes` send another size."""
    worker.frames += 1
    waiting = []
    for stream in worker.mailbox.streams:
        height, width = (128, 64) if stream.name in sizes else (64, 64)
        frame = picture(height, width)
        if stream.name in broken:
            frame = np.full_like(frame, BROKEN)
        message = image(frame)
        message.header.stamp.sec = worker.frames
        waiting.append((stream, PendingFrame(message, 0.0)))
    process(worker, waiting)


def warm(worker) -> None:
    run(worker, '')
    for outputs in worker.outputs.values():
        outputs.sent.clear()
    worker.scored.clear()
    worker.tracked.clear()


@pytest.mark.parametrize(
    ('broken', 'sizes'),
    [('b', ''), ('b', 'b'), ('ac', 'ab'), ('abc', ''), ('abc', 'ab')],
)
def test_frames_whose_outlines_fail_are_told_and_no_frame_is_fed_twice(worker, broken, sizes):
    worker.pipeline.score.start()
    run(worker, '', sizes)
    warm(worker)
    for _ in range(2):
        run(worker, broken, sizes)
    assert worker.scored == dict.fromkeys(CAMERAS, 2)
    assert worker.tracked == dict.fromkeys(set(CAMERAS) - set(broken), 2)
    for stream in worker.mailbox.streams:
        failed = 2 if stream.name in broken else 0
        assert stream.counters.failed == failed
        assert len(worker.outputs[stream.name].sent) == 2 - failed
        said = worker.health.last_error(stream.name)
        assert ('masks broke' in said) == (stream.name in broken)
        assert worker.health.verdict(stream.name)[0] == (Level.ERROR if failed else Level.OK)
    # the pipeline as a whole fails only where no camera has a result
    assert worker.fallback.failures == (2 if broken == CAMERAS else 0)
    run(worker, '', sizes)
    assert all(len(outputs.sent) >= 1 for outputs in worker.outputs.values())
    assert worker.fallback.failures == 0


def test_tracks_go_on_beside_a_camera_that_fails(worker):
    worker.pipeline.score.start()
    warm(worker)
    worker.pipeline.score.stop()
    for _ in range(6):
        run(worker, 'b')
    ids = [set(result.ids.tolist()) for result in worker.outputs['a'].sent]
    assert ids
    assert all(found == ids[0] for found in ids)


def test_the_engine_asked_for_is_prepared_beside_the_frames(ros, tmp_path, monkeypatch):
    ready = threading.Event()

    class Slow(EagerEngine):
        rounded, prepared = False, ()

        def prepare(self, shape):
            assert ready.wait(10)
            self.prepared = (*self.prepared, shape)

        def shapes(self):
            return list(self.prepared)

    monkeypatch.setitem(ENGINES, 'openvino', Slow)
    pipeline = Pipeline.from_profile(tiny(tmp_path), 'cpu', 'openvino', live=True)
    pipeline.warm_up([(64, 64)], wait=False)
    (first,) = pipeline(picture(64, 64))
    values = diagnostics.pipeline_values(pipeline)
    assert values['engine'] == 'eager'
    assert 'openvino is being prepared' in values['engine_choice']
    ready.set()
    assert pipeline.engine.wait()
    (then,) = pipeline(picture(64, 64))
    assert np.array_equal(first.score, then.score)
    values = diagnostics.pipeline_values(pipeline)
    assert (values['engine'], values['engine_choice']) == ('openvino', 'asked for')
    assert values['last_note'] == 'engine openvino runs now'
    assert 'engine_fault' not in values


@pytest.mark.parametrize('error', [RuntimeError('device lost'), ValueError('no such layer')])
def test_a_fault_of_the_engine_is_shown_with_its_remedy_and_clears(
    ros, tmp_path, monkeypatch, error
):
    """An engine that cannot be built: a simpler one runs, and the operator is told."""
    faulty = [True]

    def build(*arguments):
        if faulty:
            raise error
        return EagerEngine(*arguments)

    monkeypatch.setitem(ENGINES, 'openvino', build)
    monkeypatch.setattr(faults, 'FIRST_RETRY', 0.0)
    stream, lines = CameraStream('front'), []
    health = Health(lambda level, text: lines.append((level, text)))
    worker = Worker(Mailbox([stream]), {'front': Outputs()}, Settings(), health)
    worker.pipeline = pipeline = Pipeline.from_profile(tiny(tmp_path), 'cpu', 'openvino')
    worker._thread = threading.current_thread()
    dog = Watchdog(health)
    dog.watch_worker(worker, active=True)
    assert health.verdict() == (Level.OK, 'running')
    pipeline.warm_up([(64, 64)])
    dog.watch_worker(worker, active=True)
    level, text = health.verdict()
    assert level == Level.WARN
    assert 'engine openvino failed' in text
    assert f'({error}); using eager instead' in text
    values = diagnostics.pipeline_values(pipeline)
    assert values['engine'] == 'eager'
    assert str(error) in values['engine_fault']
    if isinstance(error, ValueError):  # it will not pass by itself
        assert '-> choose another engine' in text
        return
    faulty.clear()
    for _ in range(5):
        pipeline(picture(64, 64))
        assert pipeline.engine.wait()
    dog.watch_worker(worker, active=True)
    assert health.verdict() == (Level.OK, 'running')
    assert diagnostics.pipeline_values(pipeline)['engine'] == 'openvino'
    assert 'engine_fault' not in diagnostics.pipeline_values(pipeline)
    assert [level for level, _ in lines] == ['warn', 'info']
