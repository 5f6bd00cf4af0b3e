# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The picture in the browser: it is there, it changes, and no browser holds up anything."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs rclpy')
from node_helpers import PATIENCE, ROOT, compressed
from sensor_msgs.msg import CompressedImage

from ood_perception.ros.tools.view import serve

BROWSER = shutil.which('chromium') or shutil.which('chromium-browser')


@pytest.fixture
def sent(ros_node):
    """Colours one after the other on a topic, sixty times a second; yields their times."""
    publisher = ros_node.create_publisher(CompressedImage, '/shown/compressed', 1)
    times: list[float] = []
    done = threading.Event()

    def run() -> None:
        while not done.wait(1 / 60):
            picture = np.full((240, 320, 3), len(times) * 5 % 250, np.uint8)
            publisher.publish(compressed(picture))
            times.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    yield times
    done.set()
    thread.join()


def pictures(address: str, count: int) -> list[np.ndarray]:
    """The first pictures of the stream."""
    host = address.split('/')[2]
    connection = http.client.HTTPConnection(host, timeout=20 * PATIENCE)
    connection.request('GET', '/stream')
    response, found = connection.getresponse(), []
    assert 'multipart/x-mixed-replace' in response.headers['Content-Type']
    while len(found) < count:
        length = 0
        while (line := response.readline().strip()) or not length:
            length = int(line.split()[1]) if line.startswith(b'Content-Length') else length
        data = np.frombuffer(response.read(length), np.uint8)
        found.append(cv2.imdecode(data, cv2.IMREAD_COLOR))
    connection.close()
    return found


def test_the_picture_is_there_and_changes(sent):
    with serve('/shown/compressed', 0) as address:
        assert b'src="stream"' in urllib.request.urlopen(address).read()
        shown = pictures(address, 8)
        assert {p.shape for p in shown} == {(240, 320, 3)}
        assert len({int(p[0, 0, 0]) for p in shown}) >= 6
        with pytest.raises(urllib.error.HTTPError, match='404'):
            urllib.request.urlopen(address + 'etc/passwd')


def test_browsers_that_leave_or_take_nothing_block_nobody(sent):
    with serve('/shown/compressed', 0) as address:
        port = int(address.rstrip('/').rpartition(':')[2])
        slow = [socket.create_connection(('127.0.0.1', port)) for _ in range(5)]
        for connection in slow:  # they ask and never read
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.sendall(b'GET /stream HTTP/1.1\r\n\r\n')
        for _ in range(5):
            pictures(address, 1)  # and these leave
        before = time.monotonic()
        assert len(pictures(address, 10)) == 10
        gaps = np.diff([t for t in sent if t > before])
        assert gaps.max() < 1.0 * PATIENCE
        begin = time.monotonic()
    assert time.monotonic() - begin < 10.0 * PATIENCE  # nor does the end wait for them
    for connection in slow:
        connection.close()


def test_a_port_in_use_is_said():
    with (
        serve('/nothing', 0) as address,
        pytest.raises(ValueError, match='choose another'),
        serve('/nothing', int(address.rstrip('/').rpartition(':')[2])),
    ):
        pass


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason='needs Chromium')
def test_a_drive_moves_in_a_browser(tmp_path):
    """The command of the README, with a rendered drive for the webcam."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'ood_perception', 'camera', 'proving-ground:7', '--view']
    command += ['--size', '480x360', '--rate', '5', '--port', str(port)]
    process = subprocess.Popen(command, cwd=ROOT)
    address = f'http://127.0.0.1:{port}/'
    try:
        end = time.monotonic() + 120 * PATIENCE
        while time.monotonic() < end:
            try:
                pictures(address, 2)
                break
            except OSError:
                time.sleep(0.5)
        shots = []
        for name in ('a.png', 'b.png'):
            file = tmp_path / name
            browse = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--timeout=4000']
            browse += ['--window-size=480,360', f'--screenshot={file}', address]
            subprocess.run(browse, check=True, capture_output=True, timeout=60 * PATIENCE)
            shots.append(cv2.imread(str(file)).astype(int))
        assert shots[0].std() > 20  # no empty page
        assert (np.abs(shots[0] - shots[1]).max(2) > 20).mean() > 0.02
    finally:
        process.send_signal(2)
        assert process.wait(60) == 0
