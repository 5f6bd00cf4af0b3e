# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The services ~/accept and ~/report with the shipped weights, without a node and over DDS."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='needs rclpy')
from node_helpers import Client, NodeProcess, image, picture, pixels, write_profile

from ood_perception.pipeline import Pipeline
from ood_perception.profile import ImageConfig, Profile
from ood_perception.result import Result
from ood_perception.ros import loading
from ood_perception.ros.services import Services
from ood_perception.ros.settings import Settings
from ood_perception.site_folder import names
from ood_simulation import ProvingGround


@pytest.fixture(scope='module')
def grounds():
    """A street with unknown objects, and the same without."""
    return tuple(ProvingGround(1001, 320, 240, unknowns=n) for n in (None, 0))


def test_what_is_accepted_is_less_unknown(tmp_path, grounds):
    small = dataclasses.replace(Profile.load('compact_site'), image=ImageConfig(192))
    pipeline = Pipeline.from_profile(small, 'cpu', 'eager')
    street, empty = grounds
    frame = street.frame(30)
    shown, thing = frame.image, frame.anomaly == 1
    result = Result(instances=np.where(thing, np.uint16(3), np.uint16(0)), ids=np.array([3]))
    stream = SimpleNamespace(name='', newest=None, intensity=None)
    worker = SimpleNamespace(
        pipeline=pipeline, mailbox=SimpleNamespace(streams=[stream]), call=lambda job: job()
    )
    settings = Settings(site_folder=str(tmp_path))
    node = SimpleNamespace(worker=worker, settings=settings, create_service=lambda *_: None)
    services = Services(node)

    assert services.accept(None) == (
        False,
        'there is no memory of the site to take it in: teach it first',
    )
    pipeline.score.start()
    for i in range(20, 40, 4):
        pipeline(empty.frame(i).image, wants={'score'})
    pipeline.score.stop()

    with pytest.raises(ValueError, match='not in sight, nothing is'):
        services.report(None)
    stream.newest = image(shown), result
    with pytest.raises(ValueError, match="'' is not in sight, 3 is"):
        services.report(None)
    settings.object_id = '3'
    (before,) = pipeline(shown, wants={'score'})
    done, real = services.report(None)
    assert done
    done, normal = services.accept(None)
    assert done
    assert names(tmp_path) == sorted([real, normal])
    (after,) = pipeline(shown, wants={'score'})
    assert after.score[thing].mean() < before.score[thing].mean() - 1

    # a node that is configured anew takes it in again
    taught = pipeline.score.frames
    loading.accept_all(pipeline, str(tmp_path))
    assert pipeline.score.frames == taught
    settings.site_folder = ''
    assert services.report(None) == (False, 'the parameter site_folder is empty')


def test_a_site_is_taught_and_corrected_over_dds(ros, tmp_path, grounds):
    """Learn an empty street, see an object there, accept it: the node marks it less."""
    import rclpy

    tree = Profile.load('compact_site').to_dict()
    tree['image'] = {'short_side': 240, 'max_long_side': 0}
    profile, site = tmp_path / 'site.yaml', tmp_path / 'kept'
    profile.write_text(yaml.safe_dump(tree), encoding='utf-8')
    process = NodeProcess(
        tmp_path, f'site_{os.getpid()}', profile=str(profile), site_folder=str(site)
    )
    client = Client(rclpy.create_node(f'teacher_{os.getpid()}'), process.name)
    street, empty = grounds
    frame = street.frame(30)
    thing = frame.anomaly == 1
    try:
        client.wait_active(process)
        client.listen('instances', 'heatmap')

        def seen(instances) -> list[int]:
            ids = np.unique(pixels(instances)[thing])
            return [int(n) for n in ids if n]

        def found() -> list:
            # instances and heatmap of one frame: the heatmap of an earlier one may come late
            heatmaps = {str(m.header.stamp): m for m in client.got['heatmap']}
            outlines = [m for m in client.got['instances'] if seen(m)]
            return [m for m in outlines if str(m.header.stamp) in heatmaps]

        assert client.set_bool('learn_normal', True).success
        for index in range(10, 50, 8):
            count = client.count('processed')
            shown = image(empty.frame(index).image)
            assert client.feed('image', shown, lambda n=count: client.count('processed') > n)
        answer = client.set_bool('learn_normal', False)
        assert answer.success, answer.message
        assert client.feed('image', image(frame.image), found)
        first = found()[0]
        number = seen(first)[0]
        outlined = pixels(first) == number
        stamp = first.header.stamp
        at_first = next(m for m in client.got['heatmap'] if m.header.stamp == stamp)

        def heat(heatmap=None) -> float:
            return float(pixels(heatmap or client.got['heatmap'][-1])[outlined].mean())

        before = heat(at_first)
        assert before > 40
        assert client.set(object_id='12345')[0].successful
        assert 'is not in sight' in client.trigger('accept').message
        assert client.set(object_id=str(number))[0].successful
        answer = client.trigger('accept')
        assert answer.success, answer.message
        assert answer.message in names(site)
        assert client.feed('image', image(frame.image), lambda: heat() < before / 2), heat()
    finally:
        code = process.stop()
        client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


def test_a_node_judges_by_depth_and_says_when_none_comes(ros, tmp_path):
    """The same picture with something nearer in it is new; without depth there is a warning."""
    import rclpy

    score = {'name': 'novelty', 'options': {'stages': [0], 'position': 0.4, 'depth': 2.0}}
    profile = write_profile(tmp_path, score=score)
    process = NodeProcess(
        tmp_path, f'deep_{os.getpid()}', profile=str(profile), depth='image', depth_slop=0.0
    )
    client = Client(rclpy.create_node(f'depth_{os.getpid()}'), process.name)
    floor = np.broadcast_to(np.linspace(8, 2, 96, dtype=np.float32)[:, None], (96, 128)).copy()
    nearer = floor.copy()
    nearer[24:56, 48:80] = 1.0
    wrong = floor[:48].copy()
    frame = image(picture())
    stamp = frame.header.stamp

    def feed(depth, until) -> bool:
        def both() -> bool:
            message = image(depth, '32FC1')
            message.header.stamp.sec = stamp.sec + 1
            client.publish('depth', message)
            client.spin(timeout=0.1)
            return until()

        return client.feed('image', frame, until if depth is None else both)

    def heat() -> float:
        """Mean of the newest heatmap where something comes to stand nearer."""
        return float(pixels(client.got['heatmap'][-1])[32:48, 56:72].mean())

    def doubtful() -> bool:
        return 'without the depth' in client.statuses.get('pipeline', {}).get('message', '')

    try:
        client.wait_active(process)
        client.listen('heatmap')
        # Frames without depth are not learnt: taught before its ends know each other it refuses.
        for _ in range(5):
            assert client.set_bool('learn_normal', True).success
            count = client.count('processed')
            assert feed(floor, lambda n=count: client.count('processed') >= n + 12)
            answer = client.set_bool('learn_normal', False)
            if answer.success:
                break
            assert 'does depth come?' in answer.message
        assert answer.success, answer.message
        seen = len(client.got['heatmap'])
        assert feed(floor, lambda: len(client.got['heatmap']) >= seen + 4)
        usual = heat()
        assert feed(nearer, lambda: heat() > usual + 40), heat()
        assert feed(floor, lambda: heat() < usual + 10), heat()
        assert not doubtful()
        for unusable in (None, wrong):  # no depth at all, and one of another size
            assert feed(unusable, doubtful), client.statuses
            assert client.statuses['pipeline']['level'] == b'\x01'
            assert feed(floor, lambda: not doubtful()), client.statuses
        assert feed(nearer, lambda: heat() > usual + 40), heat()
    finally:
        code = process.stop()
        client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()
