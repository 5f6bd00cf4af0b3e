# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The shipped weights over DDS: an object is reported, and another accepted as normal."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
import rclpy
from node_helpers import Client, NodeProcess, image, rows

from ood_perception.site_folder import names
from ood_simulation import ProvingGround


def test_what_is_accepted_no_longer_alarms(ros, tmp_path):
    name, site = f'site_{os.getpid()}', tmp_path / 'site'
    process = NodeProcess(
        tmp_path,
        name,
        profile='compact_site',
        site_folder=str(site),
        detection_threshold=0.0,
        stale_after=60.0,
    )
    client = Client(rclpy.create_node(f'teacher_{os.getpid()}'), name)
    client.wait_active(process)
    client.listen('detections_json', 'instances')
    street = [ProvingGround(1007, 320, 240, unknowns=n).frame(60).image for n in (0, None)]
    empty, full = map(image, street)
    got = client.got['detections_json']

    def found():
        return max(rows(got[-1]), key=lambda row: row['confidence'], default=None) if got else None

    answer = client.trigger('report')
    assert 'is not in sight, nothing is' in answer.message
    answer = client.trigger('accept')
    assert 'teach it first' in answer.message
    assert client.set_bool('learn_normal', True).success
    before = client.count('processed')
    assert client.feed('image', empty, lambda: client.count('processed') > before + 6)
    answer = client.set_bool('learn_normal', False)
    assert answer.success, answer.message
    assert client.feed('image', full, lambda: found() is not None)
    for service, kind in (('report', 'reported'), ('accept', 'accepted')):
        object_ = found()
        assert client.set(object_id=str(object_['id']))[0].successful
        answer = client.trigger(service)
        assert answer.success, answer.message
        assert answer.message in names(site)
        assert f'_{kind}_' in answer.message
    mask = cv2.imread(str(site / 'labels' / f'{answer.message}.png'), cv2.IMREAD_GRAYSCALE) == 0
    assert mask.any()
    got.clear()
    assert client.feed('image', full, lambda: len(got) > 2)
    x0, y0, x1, y1 = object_['box_xyxy']

    def inside(row):
        u, v = np.mean(row['box_xyxy'][::2]), np.mean(row['box_xyxy'][1::2])
        return x0 < u < x1 and y0 < v < y1

    # gone, or far less sure than before
    rest = [row['confidence'] for row in rows(got[-1]) if inside(row)]
    assert max(rest, default=0.0) < object_['confidence'] - 0.2
    assert process.stop() == 0, process.text()
    client.ros.destroy_node()
