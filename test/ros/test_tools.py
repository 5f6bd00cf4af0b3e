# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The ROS tools as launch files and shells call them, and domains of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rclpy
from sensor_msgs.msg import Image
from std_msgs.msg import String

from ood_perception.bags import reading as bag
from ood_perception.bags import writing
from ood_perception.cli.main import main, without_ros_arguments
from ood_perception.frames.picture import encode
from ood_perception.ros.tools import domain, live, recording
from ood_perception.ros.tools.playing import play

ROOT = Path(__file__).resolve().parents[2]


def ood(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, '-m', 'ood_perception.cli.main', *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, code: int, timeout: float = 60) -> str:
    try:
        _, text = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == code, text
    assert 'Traceback' not in text
    return text


@pytest.mark.parametrize(
    ('given', 'own'),
    [
        (['camera', '0'], ['camera', '0']),
        (['camera', '0', '--ros-args', '-r', '__node:=x'], ['camera', '0']),
        (['play', '--ros-args', '-p', 'a:=1', '--', 'bag'], ['play', 'bag']),
        (['play', 'bag', '--ros-args', '--ros-args', '--params-file', 'f'], ['play', 'bag']),
        (['run', '--', 'folder'], ['run', '--', 'folder']),
    ],
)
def test_arguments_of_ros_are_left_to_it(given, own):
    assert without_ros_arguments(given) == own


def launched(name: str, **remaps: str) -> list[str]:
    """What launch_ros appends to a node's command."""
    arguments = ['--ros-args', '-r', f'__node:={name}', '-r', '__ns:=/robot', '-p', 'unknown:=1']
    for source, target in remaps.items():
        arguments += ['-r', f'{source}:={target}']
    return arguments


def test_camera_and_play_are_nodes_of_a_launch_file(tmp_path, ros_node, spin_until):
    shown = np.zeros((64, 96, 3), np.uint8)
    with writing.open_writer(tmp_path / 'drive') as writer:
        out = writing.MessageWriter(writer)
        for i in range(4):
            stamp = 10**9 + i * 50_000_000
            out.put('/camera/image_raw', out.image(out.header(stamp), shown, 'rgb8'), stamp)
    (tmp_path / 'shown').mkdir()
    (tmp_path / 'shown' / 'a.png').write_bytes(encode(shown, '.png'))
    seen, names = [], set()

    def look() -> None:
        names.update(name for name, space in ros_node.get_node_names_and_namespaces())

    for topic in ('/robot/camera/image_raw', '/played'):
        ros_node.create_subscription(Image, topic, lambda m, t=topic: seen.append(t), 20)
    source = (str(tmp_path / 'shown'), '--loop', '--frames', '4', '--wait', '30')
    camera = ood('camera', *source, '--transport', 'raw', *launched('eye'))
    player = ood(
        'play', str(tmp_path / 'drive'), '--wait-for', '/played', '-t', '/camera/image_raw',
        *launched('player'), '-r', '/camera/image_raw:=/played',
    )  # fmt: skip

    def arrived() -> bool:
        look()
        return len(seen) == 8 and {'eye', 'player'} <= names

    assert spin_until(arrived, 60), (seen, names)
    assert Counter(seen) == {'/robot/camera/image_raw': 4, '/played': 4}
    assert '4 frames sent' in finish(camera, 0)
    assert '/played' in finish(player, 0)


def test_a_picture_that_the_node_refuses_is_waited_for_once(monkeypatch):
    monkeypatch.setattr(live._Turn, 'PATIENCE', 1.0)
    counts: dict[str, int] = {}
    turn = live._Turn('/image', counts, threading.Event())
    waited = []
    for answers in (0, 0, 1, 2):
        counts |= dict.fromkeys(live.OUTPUTS, answers)
        begin = time.monotonic()
        turn('/image')
        waited.append(time.monotonic() - begin >= 1.0)
    assert waited == [False, True, False, False]


def test_a_recording_or_replay_of_nothing_is_an_error(tmp_path, monkeypatch, capsys):
    def says(*arguments: str) -> str:
        monkeypatch.setattr(sys, 'argv', ['ood', *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        said = ' '.join(capsys.readouterr().err.split())
        assert 'Traceback' not in said
        return said

    with writing.open_writer(tmp_path / 'drive') as writer:
        out = writing.MessageWriter(writer)
        out.put('/cam', out.image(out.header(1), np.zeros((4, 4, 3), np.uint8), 'rgb8'), 1)
    nothing = says('record', str(tmp_path / 'r'), '-t', '/nothing', '--seconds', '1')
    assert 'not one message arrived on /nothing' in nothing
    late = says('play', str(tmp_path / 'drive'), '--start-offset', '100')
    assert 'no message to play after the first 100 s' in late
    with writing.open_writer(tmp_path / 'empty') as writer:
        store = bag.typestore()
        writer.add_connection('/said', 'std_msgs/msg/String', typestore=store)
    for loop in (0, 1):
        with pytest.raises(bag.BagError, match='no message to play on /said'):
            play(tmp_path / 'empty', loop=loop)


def test_what_waits_for_the_disk_is_bounded(tmp_path, ros_node, spin_until, monkeypatch, caplog):
    monkeypatch.setattr(recording, 'BACKLOG', 5000)
    kind = 'std_msgs/msg/String'
    publisher = ros_node.create_publisher(String, '/flood', 100)
    with writing.open_writer(tmp_path / 'r') as writer:
        recorder = recording._Recorder(writer, ros_node, ['/flood'], {'/flood': kind})
        recorder.discover()
        assert spin_until(lambda: publisher.get_subscription_count() > 0)
        for _ in range(50):
            publisher.publish(String(data='x' * 1000))
        assert spin_until(lambda: sum(recorder.lost.values()) + recorder.received.qsize() == 50)
        assert recorder.waiting <= 5000
        assert recorder.received.qsize() == 4
        recorder.write(0.1)
        assert (recorder.waiting, recorder.counts['/flood']) == (0, 4)
        publisher.publish(String(data='x' * 9000))  # larger than all that may wait, and alone
        assert spin_until(lambda: recorder.received.qsize() == 1)
        recorder.close()
    assert recorder.counts['/flood'] == 5
    assert '46 messages were lost' in caplog.text


@pytest.fixture
def two_domains():
    """Two ids that no other run of this machine takes meanwhile: their locks are held."""
    with domain.private_domain() as first, domain.private_domain() as second:
        yield first, second


def test_domains_are_safe_and_free(two_domains, monkeypatch, tmp_path):
    only, other = two_domains
    # Locks of its own: those of the fixture stay.
    monkeypatch.setattr(domain.tempfile, 'gettempdir', lambda: str(tmp_path))
    before = dict(os.environ)
    with domain.private_domain() as first, domain.private_domain() as second:
        assert first != second
        assert os.environ['ROS_DOMAIN_ID'] == str(second)
        assert os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] == 'LOCALHOST'
    assert dict(os.environ) == before
    with pytest.raises(RuntimeError, match='inside'), domain.private_domain():
        raise RuntimeError('inside')
    assert dict(os.environ) == before
    for number in domain.SAFE_DOMAINS:
        ports = [7400 + 250 * number + i for i in (0, 11 + 2 * 50)]
        assert number > 0
        assert ports[1] < 32768 or 60999 < ports[0] < ports[1] < 65536
    monkeypatch.setattr(domain, 'SAFE_DOMAINS', (only, other))
    with domain.private_domain() as first, domain.private_domain() as second:
        assert {first, second} == {only, other}
        with pytest.raises(domain.NoFreeDomain), domain.private_domain():
            pass


def test_two_runs_at_once_never_share_a_domain(monkeypatch):
    """The second is another process; both may choose between two domains only."""
    monkeypatch.setattr(domain, 'SAFE_DOMAINS', (213, 214))
    code = (
        'import sys; from ood_perception.ros.tools import domain; '
        'domain.SAFE_DOMAINS = (213, 214)\n'
        'with domain.private_domain() as d: print(d, flush=True); sys.stdin.read()'
    )
    command = [sys.executable, '-c', code]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    other = subprocess.Popen(command, cwd=ROOT, **pipes)
    try:
        theirs = int(other.stdout.readline())
        for _ in range(5):
            with domain.private_domain() as ours:
                assert {ours, theirs} == {213, 214}
    finally:
        other.communicate('', timeout=30)


def test_a_domain_with_nodes_in_it_is_not_free(ros):
    # Locked, so that no other run looks at its ports: that takes them for a moment.
    locks = ((number, domain._lock(number)) for number in reversed(domain.SAFE_DOMAINS))
    number, lock = next(pair for pair in locks if pair[1] is not None)
    with lock:
        context = rclpy.context.Context()
        rclpy.init(context=context, domain_id=number)
        node = rclpy.create_node('somebody', context=context)
        try:
            assert domain._in_use(number)
        finally:
            node.destroy_node()
            rclpy.try_shutdown(context=context)
