# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""A rosbag as training frames: without labels, with a topic of labels, with a folder of them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('rosbags', reason="the extra 'bag' is not installed")

from ood_perception.bags import reading as bag
from ood_perception.bags import writing
from ood_simulation import ProvingGround
from ood_training.checkpointing import TrainingError
from ood_training.sources import open_frames


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """0.8 seconds of a drive at 10 frames a second: frames 0, 3 and 6 are far enough apart."""
    ground = ProvingGround(seed=3, width=96, height=64, rate=10.0, unknowns=2.0)
    path = tmp_path_factory.mktemp('bag') / 'drive'
    writing.write_drive(path, ground.drive(0.8), focal=ground.focal)
    return path, [ground.frame(i) for i in (0, 3, 6)]


@pytest.fixture
def drive(written, tmp_path):
    """The bag in a folder of the test's own: its frames are written beside it."""
    path, frames = written
    return shutil.copytree(path, tmp_path / 'drive'), frames


def test_images_alone_are_all_known(drive):
    path, frames = drive
    found = open_frames(f'bag:{path}@/camera/image_raw', 'train')
    assert len(found) == 3
    for i, frame in enumerate(frames):
        image, label = found.load(i)
        assert np.array_equal(image, frame.image)
        assert not label.any()
    # written once: the second time nothing of the bag is read
    for file in path.iterdir():
        file.unlink()
    assert len(open_frames(f'bag:{path}@/camera/image_raw', 'train')) == 3


def test_labels_of_a_topic(drive):
    path, frames = drive
    found = open_frames(f'bag:{path}@/camera/image_raw+/labels/semantic', 'train', 'camvid')
    for i, frame in enumerate(frames):
        image, label = found.load(i)
        assert np.array_equal(image, frame.image)
        known = frame.semantic < 11
        assert np.array_equal(label[known], frame.semantic[known])


def test_labels_of_a_folder(drive, tmp_path):
    path, frames = drive
    stamps = [
        m.header.stamp.sec * 10**9 + m.header.stamp.nanosec
        for _, m in bag.read_topic(path, '/camera/image_raw')
    ]
    labels = tmp_path / 'labels'
    labels.mkdir()
    # a label for the first and the last frame that is taken, one 0.4 ms off
    Image.fromarray(frames[0].anomaly).save(labels / f'{stamps[0] + 400_000}.png')
    Image.fromarray(frames[2].anomaly).save(labels / f'front_{stamps[6]}.png')
    found = open_frames(f'bag:{path}@/camera/image_raw+{labels}', 'val', 'benchmark')
    assert len(found) == 2
    for i, frame in enumerate((frames[0], frames[2])):
        image, label = found.load(i)
        assert np.array_equal(image, frame.image)
        assert np.array_equal(label == 254, frame.anomaly == 1)


@pytest.mark.parametrize(
    ('split', 'message'),
    [
        ('@/nothing', r'no image topic /nothing; it has /camera/image_raw'),
        ('@/camera/image_raw+/labels/nothing', "no topic '/labels/nothing'"),
        ('@/camera/image_raw+nowhere', 'nowhere: no such folder of labels'),
        ('@/camera/image_raw+{empty}', 'no file whose name ends in a stamp'),
        ('@/camera/image_raw+{foreign}', 'no image has a label'),
    ],
)
def test_what_is_missing_is_named(drive, tmp_path, split, message):
    for name in ('empty', 'foreign'):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / 'foreign' / '123456789.png')
    split = split.format(empty=tmp_path / 'empty', foreign=tmp_path / 'foreign')
    with pytest.raises(TrainingError, match=message):
        open_frames(f'bag:{drive[0]}{split}', 'train', 'camvid')


def test_a_file_that_is_no_bag(tmp_path):
    (tmp_path / 'x.mcap').write_bytes(b'nothing')
    with pytest.raises(TrainingError, match='cannot be read as training frames'):
        open_frames(f'bag:{tmp_path / "x.mcap"}', 'train')
