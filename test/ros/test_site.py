# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The services ~/accept and ~/report with the shipped weights, without a node."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from node_helpers import image

from ood_perception.pipeline import Pipeline
from ood_perception.profile import ImageConfig, Profile
from ood_perception.result import Result
from ood_perception.ros import loading
from ood_perception.ros.services import Services
from ood_perception.ros.settings import Settings
from ood_perception.site_folder import names
from ood_simulation import ProvingGround


def test_what_is_accepted_is_less_unknown(tmp_path):
    small = dataclasses.replace(Profile.load('compact_site'), image=ImageConfig(192))
    pipeline = Pipeline.from_profile(small, 'cpu', 'eager')
    street, empty = (ProvingGround(1007, 256, 192, unknowns=n) for n in (None, 0))
    frame = street.frame(60)
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
    for i in range(50, 70, 4):
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
