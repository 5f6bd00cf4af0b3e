# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood run` on what people have: names kept, nothing silent, every write checked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer

from ood_perception.bags import writing
from ood_perception.bags.sources import Item, open_source
from ood_perception.bags.video import VideoWriter, probe
from ood_perception.cli.common import (
    expected_errors,
    group,
    one_line,
    parse_range,
    parse_size,
)
from ood_perception.cli.main import main
from ood_perception.cli.run import _up_to
from ood_perception.frames.picture import encode

from small_models import small_profile


@pytest.fixture
def ood(monkeypatch, capsys):
    """Run the command `ood` in this process; returns (exit code, stderr)."""

    def call(*arguments: str | Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['ood', *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), ' '.join(capsys.readouterr().err.split())

    return call


@pytest.fixture(scope='module')
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)


@pytest.fixture(scope='module')
def quick(tmp_path_factory) -> tuple[str, ...]:
    """Options with which a frame takes a moment: nothing here depends on what the network says."""
    small = small_profile(tmp_path_factory.mktemp('profile'), 'compact')
    return '--engine', 'eager', '--profile', small


def test_results_keep_the_names_and_what_is_left_out_is_listed(ood, tmp_path, rgb, quick):
    source, out = tmp_path / 'in [1]', tmp_path / 'out'
    source.mkdir()
    odd = os.fsdecode(b'Stra\xdfe.jpg')
    jpeg = encode(rgb, '.jpg')
    for name in ('frame_0815.png', 'twice.JPG', 'twice.png', odd, '[/b].jpg'):
        if '/' not in name:
            (source / name).write_bytes(jpeg)
    (source / '[b].jpg').write_bytes(jpeg)
    (source / 'half.jpg').write_bytes(jpeg[: len(jpeg) // 2])
    (source / 'notes.txt').write_text('x')
    (source / '.hidden.jpg').write_bytes(jpeg)
    code, said = ood('run', source, out, *quick)
    assert code == 0, said
    assert '2 left out' in said
    assert 'half.jpg' in said
    assert 'cut off' in said
    index = json.loads((out / 'index.json').read_text())
    rows = {row['file']: row for row in index['files']}
    assert set(rows) == {
        'frame_0815.png', 'twice.JPG', 'twice.png', odd, '[b].jpg', 'half.jpg', 'notes.txt',
    }  # fmt: skip
    assert rows['half.jpg']['status'] == 'left out'
    assert rows['frame_0815.png']['size'] == [80, 60]
    good = [row for row in rows.values() if row['status'] == 'ok']
    assert len(good) == len({row['name'] for row in good}) == 5
    for row in good:
        for ending in ('_overlay.jpg', '_heatmap.png', '_instances.png', '.json'):
            assert (out / (row['name'] + ending)).is_file()
    assert rows['frame_0815.png']['name'] == 'frame_0815'
    heat = cv2.imread(str(out / 'frame_0815_heatmap.png'), cv2.IMREAD_UNCHANGED)
    assert heat.shape == (60, 80)
    ids = cv2.imread(str(out / 'frame_0815_instances.png'), cv2.IMREAD_UNCHANGED)
    assert ids.dtype == np.uint16
    found = json.loads((out / 'frame_0815.json').read_text())
    assert {o['id'] for o in found} >= set(np.unique(ids).tolist()) - {0}
    assert all({'box', 'area', 'score', 'class_id', 'surroundings'} <= set(o) for o in found)


def test_a_video_gives_a_video(ood, tmp_path, quick):
    with VideoWriter(tmp_path / 'in.mp4', 12.5) as writer:
        for number in range(4):
            writer.write(np.full((60, 80, 3), number * 60, np.uint8))
    out = tmp_path / 'out'
    code, said = ood('run', tmp_path / 'in.mp4', out, *quick, '--video', '--no-pictures')
    assert code == 0, said
    assert sorted(p.name for p in out.iterdir()) == ['index.json', 'overlay.mp4']
    info = probe(out / 'overlay.mp4')
    assert (info.rate, info.length) == (12.5, 4)
    frames = list(open_source(str(out / 'overlay.mp4')).frames())
    assert frames[0].shape == (60, 80, 3)
    code, said = ood('run', tmp_path / 'in.mp4', out, *quick, '--limit', '2')
    assert code == 0, said
    assert (out / '000001_overlay.jpg').is_file()
    assert not (out / '000002_overlay.jpg').is_file()


def test_a_bag_needs_no_ros(ood, tmp_path, rgb, quick):
    with writing.open_writer(tmp_path / 'bag') as writer:
        out = writing.MessageWriter(writer)
        for number in range(2):
            out.put('/cam', out.image(out.header(10**9 + number), rgb, 'rgb8'), 10**9 + number)
    code, said = ood('run', tmp_path / 'bag', tmp_path / 'out', *quick)
    assert code == 0, said
    rows = json.loads((tmp_path / 'out' / 'index.json').read_text())['files']
    assert [row['stamp_ns'] for row in rows] == [10**9, 10**9 + 1]


def test_frames_at_once_change_nothing_but_the_time(ood, tmp_path, rgb, quick):
    with writing.open_writer(tmp_path / 'bag') as writer:
        out = writing.MessageWriter(writer)
        for number in range(1, 7):
            picture = np.roll(rgb, number, 1)
            message = out.image(out.header(number * 10**8), picture, 'rgb8')
            if number == 3:
                message.encoding = 'nonsense'
            out.put('/cam', message, number * 10**8)
    trees = []
    for count in ('1', '3'):
        folder = tmp_path / count
        code, said = ood('run', tmp_path / 'bag', folder, *quick, '--in-flight', count)
        assert code == 0, said
        trees.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert trees[0] == trees[1]
    states = [row['status'] for row in json.loads(trees[0]['index.json'])['files']]
    assert states == ['ok', 'ok', 'left out', 'ok', 'ok', 'ok']


@pytest.mark.parametrize(('limit', 'wanted'), [(0, 5), (1, 1), (2, 3), (3, 5), (9, 5)])
def test_no_picture_behind_the_limit_is_begun(rgb, limit, wanted):
    items = [Item(str(i), str(i), None if i in (1, 3) else rgb) for i in range(5)]
    assert list(_up_to(limit, items)) == items[:wanted]


def test_what_cannot_be_written_is_one_line(ood, tmp_path, rgb, quick):
    source = tmp_path / 'a.png'
    source.write_bytes(encode(rgb, '.png'))
    (tmp_path / 'file').touch()
    code, said = ood('run', source, tmp_path / 'file', *quick)
    assert code == 1
    assert 'File exists' in said
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'a_heatmap.png').mkdir()
    code, said = ood('run', source, out, *quick)
    assert code == 1
    assert 'Is a directory' in said
    (out / 'a_heatmap.png').rmdir()
    (out / 'a_overlay.jpg').unlink()
    (out / 'a_overlay.jpg').symlink_to('/dev/full')
    code, said = ood('run', source, out, *quick)
    assert code == 1
    assert 'No space left' in said
    assert 'Traceback' not in said


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['run', 'nothing'], 'no folder, picture, video or bag'),
        (['run', 'text.jpg'], 'no picture, video or bag'),
        (['run', 'half.jpg'], 'cut off'),
        (['run', 'old.bag'], 'rosbags-convert'),
        (['run', 'empty'], 'no pictures in'),
        (['bench', '--profile', 'nothing'], 'no profile named'),
        (['bench', '--cameras', '1,x'], 'numbers of 1 or more'),
        (['record', 'out', '-t', '/my cam'], 'topic name must not contain'),
        (['run', 'pipe'], 'neither a file nor a folder'),
        (['run', 'pictures', 'pictures'], 'another folder'),
        (['run', 'pictures', '--intensity-range', '9,3'], 'LOW,HIGH'),
        (['learn-normal', 'old.bag'], 'rosbags-convert'),
        (['learn-normal', 'half.jpg'], 'cut off'),
        (['camera', 'old.bag'], 'rosbags-convert'),
        (['demo', '--input', 'old.bag'], 'rosbags-convert'),
        (['demo', '--input', 'half.jpg'], 'cut off'),
        (['demo', '--input', 'nothing'], 'no folder, picture, video or bag'),
        (['demo', '--output', '.'], 'run holds something else'),
        (
            ['demo', '--output', 'mine', '--input', 'mine/drive'],
            'is the input and would be overwritten',
        ),
        (['evaluate', 'bag', 'old.bag'], 'rosbags-convert'),
        (['evaluate', 'folder', 'pictures', '--values', '7=9'], 'VALUE='),
        (['drive', 'out', '--size', '320'], 'WIDTHxHEIGHT'),
        (['export', 'x.onnx', '--size', '320'], 'WIDTHxHEIGHT'),
        (['camera', 'pictures', '--size', '320x'], 'WIDTHxHEIGHT'),
        (['camera', 'pictures', '--namespace', 'my cam'], "or '}': 'my cam/image_raw'"),
    ],
)
def test_a_source_that_yields_nothing_is_named(ood, arguments, text, tmp_path, rgb, monkeypatch):
    if arguments[0] in ('camera', 'demo', 'record'):
        pytest.importorskip('rclpy')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COLUMNS', '300')
    jpeg = encode(rgb, '.jpg')
    Path('text.jpg').write_text('no picture')
    Path('half.jpg').write_bytes(jpeg[: len(jpeg) // 2])
    os.mkfifo('pipe')
    Path('old.bag').write_bytes(b'#ROSBAG V2.0\n')
    for folder in ('empty', 'run/mine', 'pictures/labels', 'pictures/images', 'mine/drive'):
        Path(folder).mkdir(parents=True)
    Path('mine/drive/drive.mcap').touch()
    Path('pictures/a.jpg').write_bytes(jpeg)
    Path('pictures/images/a.jpg').write_bytes(jpeg)
    Path('pictures/labels/a.png').write_bytes(encode(rgb[..., 0] // 200, '.png'))
    code, said = ood(*arguments)
    assert code != 0
    assert text in said
    assert 'Traceback' not in said
    assert Path('run/mine').is_dir()
    assert Path('mine/drive/drive.mcap').is_file()


def test_errors_of_the_outer_world_become_one_line():
    import sqlite3

    import apsw
    from rclpy.exceptions import InvalidTopicNameException
    from safetensors import SafetensorError

    for error, text in (
        (InvalidTopicNameException('my cam', 'no spaces', 2), "no spaces: 'my cam'"),
        (OSError(28, 'No space left on device', 'a.png'), 'a.png: No space left on device'),
        (PermissionError(13, 'Permission denied', '/x'), '/x: Permission denied'),
        (sqlite3.OperationalError('database or disk is full'), 'disk is full'),
        (apsw.FullError('database or disk is full'), 'disk is full'),
        (SafetensorError('I/O error: no space\nmore'), 'SafetensorError: I/O error: no space'),
    ):
        assert isinstance(error, expected_errors())
        assert text in one_line(error)
        assert '\n' not in one_line(error)


@pytest.mark.parametrize('package', ['ood_evaluation', 'ood_perception', 'ood_training', ''])
def test_our_own_errors_become_one_line_and_others_do_not(package, capsys):
    error = type('Refused', (RuntimeError,), {'__module__': f'{package or "torch"}.some.file'})
    commands = group('Commands.')

    @commands.command()
    def one():
        raise error('this is why')

    @commands.command()
    def two(): ...

    with pytest.raises(SystemExit if package else RuntimeError) as ended:
        commands(['one'])
    if package:
        assert ended.value.code == 1
        assert 'this is why' in capsys.readouterr().err


def test_sizes_and_ranges():
    assert parse_size('640x480') == (640, 480)
    assert parse_size('', empty=True) == (0, 0)
    for text in ('', '640', '640x', 'x480', '0x0', '-1x5', 'axb', '1x2x3'):
        with pytest.raises(typer.BadParameter, match='WIDTHxHEIGHT'):
            parse_size(text)
    assert parse_range('7600,8600') == (7600.0, 8600.0)
    assert parse_range('') is None
    for text in ('1', '2,1', '1,1', 'a,b', '1,2,3', 'nan,1'):
        with pytest.raises(typer.BadParameter, match='LOW,HIGH'):
            parse_range(text)
