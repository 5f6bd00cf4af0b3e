# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Bags: written, read, played and recorded over real DDS, byte by byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from ood_perception.bags import reading as bag
from ood_perception.bags import writing
from ood_perception.cli.main import main
from ood_perception.frames.decode import decode, stored_values
from ood_perception.ros.tools.playing import play
from ood_perception.ros.tools.recording import record
from ood_simulation import ProvingGround

IMAGE, INFO = '/camera/image_raw', '/camera/camera_info'
LABELS = ('/labels/anomaly', '/labels/instances', '/labels/semantic')


@pytest.fixture(scope='module')
def ground() -> ProvingGround:
    return ProvingGround(seed=1004, width=96, height=64, rate=20.0, unknowns=1.0, place='rural')


@pytest.fixture(scope='module', params=bag.STORAGES)
def drive(request, tmp_path_factory, ground) -> Path:
    path = tmp_path_factory.mktemp('drive') / 'out.bag'
    steps = []
    count = writing.write_drive(
        path, ground.drive(0.5), focal=ground.focal, storage=request.param, on_frame=steps.append
    )
    assert count == 10
    assert steps == list(range(1, 11))
    return path


def raw_bytes(path: Path) -> list[tuple[str, int, bytes]]:
    with bag.Bag(path) as reader:
        return [(c.topic, t, bytes(raw)) for c, t, raw in reader.messages()]


def test_topics_of_a_drive(drive):
    found = {topic.name: (topic.type, topic.count) for topic in bag.topics(drive)}
    assert found == {
        IMAGE: ('sensor_msgs/msg/Image', 10),
        INFO: ('sensor_msgs/msg/CameraInfo', 10),
        **dict.fromkeys(LABELS, ('sensor_msgs/msg/Image', 10)),
    }


def test_pixels_and_stamps_come_back(drive, ground):
    frames = list(ground.drive(0.5))
    for name, field in (
        (IMAGE, 'image'),
        (LABELS[0], 'anomaly'),
        (LABELS[1], 'instances'),
        (LABELS[2], 'semantic'),
    ):
        messages = list(bag.read_topic(drive, name))
        assert len(messages) == 10
        for frame, (stamp, message) in zip(frames, messages, strict=True):
            assert np.array_equal(stored_values(message), getattr(frame, field))
            header = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            assert header == stamp == writing.DRIVE_START_NS + round(frame.stamp * 1e9)
            assert message.header.frame_id == writing.CAMERA_FRAME
    assert max(frame.instances.max() for frame in frames) > 255, 'mono16 is not exercised'


def test_camera_info_is_the_cameras(drive, ground):
    _, info = next(bag.read_topic(drive, INFO))
    assert (info.height, info.width) == (64, 96)
    assert info.k[0] == info.k[4] == info.p[0] == pytest.approx(ground.focal)
    assert info.k[2] == 48.0


def test_rclpy_reads_what_was_written(drive, ros, ground):
    from rclpy.serialization import deserialize_message, serialize_message

    raws = [raw for topic, _, raw in raw_bytes(drive) if topic == IMAGE]
    for frame, raw in zip(ground.drive(0.5), raws, strict=True):
        message = deserialize_message(raw, Image)
        assert (message.encoding, message.step) == ('rgb8', 96 * 3)
        assert np.array_equal(decode(message), frame.image)
        # Padding bytes are free to differ, the length is not.
        assert len(serialize_message(message)) == len(raw)


def test_compressed_drive(tmp_path, ground):
    writing.write_drive(tmp_path / 'jpeg', ground.drive(0.1), compressed=True, labels='')
    topic = '/camera/image_raw/compressed'
    assert [t.name for t in bag.topics(tmp_path / 'jpeg')] == [INFO, topic]
    _, message = next(bag.read_topic(tmp_path / 'jpeg', topic))
    image = decode(message)
    assert np.abs(image.astype(int) - ground.frame(0).image).mean() < 8


def test_errors_name_what_is_wrong(tmp_path, drive):
    with pytest.raises(bag.BagError, match='no bag at'):
        bag.topics(tmp_path / 'nothing')
    with pytest.raises(bag.BagError, match='exists already'):
        writing.open_writer(drive)
    with pytest.raises(bag.BagError, match="got 'tape'"):
        writing.open_writer(tmp_path / 'x', 'tape')
    with pytest.raises(bag.BagError, match=r"no topic '/other'; it has /camera"):
        list(bag.read_topic(drive, '/other'))
    with pytest.raises(bag.BagError, match='has no topic /other'):
        play(drive, topics=['/other'])
    (tmp_path / 'text.bag').write_text('not a bag')
    with pytest.raises(bag.BagError, match='not a rosbag2 bag'):
        bag.topics(tmp_path / 'text.bag')
    (tmp_path / 'old.bag').write_bytes(b'#ROSBAG V2.0\n')
    with pytest.raises(bag.BagError, match=r'rosbags-convert --src .*old\.bag --dst'):
        bag.topics(tmp_path / 'old.bag')
    folder = tmp_path / 'broken'
    folder.mkdir()
    (folder / 'metadata.yaml').write_text('rosbag2_bagfile_information: 3\n')
    with pytest.raises(bag.BagError):
        bag.topics(folder)
    (tmp_path / 'cut.mcap').write_bytes(b'\x89MCAP0\r\n\x01\x02')
    with pytest.raises(bag.BagError):
        bag.topics(tmp_path / 'cut.mcap')
    for options in ({'rate': 0.0}, {'clock': -1.0}, {'loop': -1}, {'start': -1.0}):
        with pytest.raises(ValueError, match='expected'):
            play(drive, **options)


def collect(node, kind, topic: str, **options) -> list:
    got: list = []
    node.create_subscription(kind, topic, got.append, 50, **options)
    return got


def play_in_thread(path: Path, **options) -> tuple[threading.Thread, dict]:
    result: dict = {}

    def work() -> None:
        result.update(play(path, **options))

    thread = threading.Thread(target=work)
    thread.start()
    return thread, result


def test_play_sends_the_recorded_bytes(drive, ros_node, spin_until):
    got = collect(ros_node, Image, IMAGE, raw=True)
    clock = collect(ros_node, Clock, '/clock')
    thread, result = play_in_thread(drive, rate=2.0, clock=50.0, wait_for=[IMAGE])
    assert spin_until(lambda: len(got) == 10 and not thread.is_alive())
    recorded = [raw for topic, _, raw in raw_bytes(drive) if topic == IMAGE]
    assert [g[4:] for g in got] == [r[4:] for r in recorded]
    assert result == {IMAGE: 10, INFO: 10, **dict.fromkeys(LABELS, 10)}
    times = [c.clock.sec * 10**9 + c.clock.nanosec for c in clock]
    assert times == sorted(set(times))
    # 0.45 s at twice the speed take 0.225 s; the last message has a tick of its own
    assert 3 <= len(times) <= 0.225 * 50 + 2
    assert times[0] >= writing.DRIVE_START_NS
    assert times[-1] == writing.DRIVE_START_NS + 450_000_000


def test_play_part_of_a_bag_twice_under_another_name(drive, ros_node, spin_until):
    got = collect(ros_node, Image, '/elsewhere')
    progress = []
    thread, result = play_in_thread(
        drive,
        topics=[IMAGE],
        loop=2,
        start=0.3,
        rate=4.0,
        remap={IMAGE: '/elsewhere'},
        wait_for=['/elsewhere'],
        on_progress=lambda done, length: progress.append((done, length)),
    )
    assert spin_until(lambda: len(got) == 8 and not thread.is_alive())
    assert result == {'/elsewhere': 8}
    stamps = [m.header.stamp.nanosec for m in got]
    assert stamps == [300_000_000, 350_000_000, 400_000_000, 450_000_000] * 2
    assert progress[-1] == (pytest.approx(0.15), pytest.approx(0.15))


def test_play_stops_and_gives_up(drive):
    stop, twice = threading.Event(), threading.Event()
    seen = []

    def count(done: float, length: float) -> None:
        seen.append(done)
        if len(seen) > 60:
            twice.set()

    thread, result = play_in_thread(drive, loop=0, rate=4.0, stop=stop, on_progress=count)
    assert twice.wait(60), 'the bag of 50 messages did not begin again'
    assert thread.is_alive()
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert result[IMAGE] > 0
    with pytest.raises(bag.BagError, match='nobody subscribed to /camera/image_raw'):
        play(drive, wait_for=[IMAGE], wait_timeout=0.2)
    with pytest.raises(bag.BagError, match='not played'):
        play(drive, wait_for=['/other'], wait_timeout=0.2)
    with pytest.raises(bag.BagError, match='no topic /camera/picture; it has /camera/camera_info'):
        play(drive, remap={'/camera/picture': '/played'})


def test_record_what_play_sends(drive, tmp_path, request):
    """Each kind of bag is played once and recorded once: the one as the other."""
    played = request.node.callspec.params['drive']
    (storage,) = (other for other in bag.STORAGES if other != played)
    ready, counts = threading.Event(), {}
    topics = [IMAGE, *LABELS]

    def work() -> None:
        counts.update(
            record(
                tmp_path / 'copy',
                topics,
                lambda done: all(done[t] >= 10 for t in topics),
                seconds=60,
                storage=storage,
                types=dict.fromkeys(topics, 'sensor_msgs/msg/Image'),
                ready=ready,
            )
        )

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(20)
    play(drive, wait_for=topics)
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert counts == dict.fromkeys(topics, 10)
    for topic in topics:
        ours = [raw[4:] for name, _, raw in raw_bytes(tmp_path / 'copy') if name == topic]
        theirs = [raw[4:] for name, _, raw in raw_bytes(drive) if name == topic]
        assert ours == theirs
    assert {t.name: t.count for t in bag.topics(tmp_path / 'copy')} == counts


def test_record_discovers_topics_and_their_qos(tmp_path, ros_node, spin_until):
    from ood_perception.ros import qos

    best_effort = ros_node.create_publisher(CompressedImage, '/jpeg', qos.profile('latest'))
    latched = ros_node.create_publisher(String, '/info', qos.profile('latched'))
    latched.publish(String(data='said before anybody listened'))
    counts: dict = {}

    def work() -> None:
        enough = lambda done: done['/jpeg'] >= 5 and done['/info'] >= 1  # noqa: E731
        counts.update(record(tmp_path / 'found', ['/jpeg', '/info'], enough, seconds=60))

    thread = threading.Thread(target=work)
    thread.start()

    def send() -> bool:
        best_effort.publish(CompressedImage(format='jpeg', data=b'\xff\xd8'))
        return not thread.is_alive()

    assert spin_until(send, 70)
    assert counts['/info'] == 1
    (_, message), *_ = bag.read_topic(tmp_path / 'found', '/info')
    assert message.data == 'said before anybody listened'


def test_commands_as_processes(tmp_path, ros_node, monkeypatch, capsys):
    """`ood drive` here, then `ood record` beside `ood play`; Ctrl-C ends the recorder."""
    program = [sys.executable, '-m', 'ood_perception.cli.main']
    root = Path(__file__).resolve().parents[2]

    def run(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['ood', *args])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), ' '.join(capsys.readouterr().err.split())

    code, said = run(
        'drive', str(tmp_path / 'a'), '--seconds', '0.5', '--size', '96x64', '--seed', '2'
    )
    assert code == 0, said
    assert '15 frames' in said
    code, said = run('drive', str(tmp_path / 'a'), '--seconds', '0.5')
    assert code == 1
    assert 'exists already' in said

    with open(tmp_path / 'log', 'w') as log:
        recorder = subprocess.Popen(
            [*program, 'record', str(tmp_path / 'b'), '--topics', f'{IMAGE},{LABELS[0]}'],
            cwd=root, stdout=log, stderr=log, env=os.environ.copy(),
        )  # fmt: skip
        try:
            # The recorder waits for publishers, so the bag is played until it has what it wants.
            player = subprocess.Popen(
                [*program, 'play', str(tmp_path / 'a'), '--loop'],
                cwd=root, stdout=log, stderr=log, env=os.environ.copy(),
            )  # fmt: skip
            end = time.monotonic() + 60
            while time.monotonic() < end and ros_node.count_subscribers(IMAGE) == 0:
                rclpy.spin_once(ros_node, timeout_sec=0.1)
            time.sleep(2.0)
            player.send_signal(signal.SIGINT)
            assert player.wait(30) == 0
            recorder.send_signal(signal.SIGINT)
            assert recorder.wait(30) == 0, (tmp_path / 'log').read_text()
        finally:
            for process in (recorder, player):
                if process.poll() is None:
                    process.kill()
    assert all(topic.count > 0 for topic in bag.topics(tmp_path / 'b'))
