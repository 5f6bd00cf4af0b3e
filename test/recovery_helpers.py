# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A node with the shipped weights whose engine has faults on demand, and what its client does."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rclpy
from node_helpers import ROOT, Client, NodeProcess, image

OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'
TOPIC = '/camera/image_raw'


def rendered(width: int, height: int):
    """A frame of a road with things on it that do not belong there, and their labels."""
    from ood_simulation import ProvingGround

    return ProvingGround(1007, width, height).frame(60)


@contextlib.contextmanager
def faulty_node(folder: Path, profile: Path | str) -> Iterator[Client]:
    """A client of one node with a profile; `control` is the file that tells its faults."""
    name = f'{folder.name}_{os.getpid()}'
    control = folder / 'control'
    control.write_text('')
    process = NodeProcess.__new__(NodeProcess)
    process.prepare(folder, name, {'image': TOPIC}, profile=str(profile), stale_after=1.0)
    process.command = [
        sys.executable,
        str(ROOT / 'test' / 'faulty_node.py'),
        str(control),
        *process.command[3:],
    ]
    process.start()
    client = Client(rclpy.create_node(f'doctor_{os.getpid()}'), name)
    client.process, client.control, client.stamp = process, control, 1
    client.wait_active(process)
    client.listen('heatmap', 'instances', 'overlay', 'detections_json')
    yield client
    control.write_text('')
    code = process.stop()
    client.ros.destroy_node()
    assert code == 0, process.text()
    assert 'Traceback' not in process.text()


def feed(client, scene, until, timeout: float = 60.0) -> bool:
    """Send the scene, with rising stamps, until a condition holds."""
    frame = image(np.ascontiguousarray(scene.image))
    frame.header.stamp.sec = client.stamp
    client.newest = frame
    done = client.feed(TOPIC, frame, until, timeout)
    client.stamp = frame.header.stamp.sec + 1
    return done


def level(client, part: str = 'pipeline') -> bytes:
    return client.statuses.get(part, {}).get('level', b'\xff')


def message(client, part: str = 'pipeline') -> str:
    return client.statuses.get(part, {}).get('message', '')


def well(client) -> bool:
    """Whether all is well, but that a busy machine may drop most frames."""
    camera = level(client, 'camera')
    busy = camera == WARN and message(client, 'camera').endswith('engine or device')
    return level(client) == OK and (
        camera == OK or (busy and 'dropped' in message(client, 'camera'))
    )


def fresh(client) -> bool:
    """Whether a heatmap has come since the last call of `forget`."""
    return bool(client.got['heatmap'])


def forget(client) -> None:
    client.spin(timeout=0.3)
    for messages in client.got.values():
        messages.clear()
