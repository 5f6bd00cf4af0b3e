# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""One opener: folders, pictures, videos and bags as they come, and what is left out of them."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ood_evaluation.joining import grouped
from ood_perception.bags import reading as bags
from ood_perception.bags import writing
from ood_perception.bags.files import natural, shown
from ood_perception.bags.sources import SourceError, open_source
from ood_perception.bags.video import VideoWriter, probe
from ood_perception.frames.picture import encode
from ood_simulation import SimulatedFrame

INPUTS = Path(__file__).parents[3] / 'shared' / 'data' / 'field_inputs'
CAMERA = '/camera/image_raw'


@pytest.fixture(scope='module')
def rgb() -> np.ndarray:
    v, u = np.mgrid[0:40, 0:60]
    return np.stack([u * 4, v * 6, 255 - u * 2 - v * 3], -1).astype(np.uint8)


def fill(folder: Path, rgb: np.ndarray) -> None:
    """Everything that a folder of somebody's pictures may hold."""
    folder.mkdir()
    jpeg, png = encode(rgb, '.jpg'), encode(rgb, '.png')
    for name in ('b10.jpg', 'b2.JPG', 'a c.Jpeg', 'äé[x].jpg', 'twice.jpg', 'noending'):
        (folder / name).write_bytes(jpeg)
    (folder / 'twice.png').write_bytes(png)
    (folder / os.fsdecode(b'Stra\xdfe.jpg')).write_bytes(jpeg)
    (folder / 'no_end.jpg').write_bytes(jpeg[:-2])
    (folder / 'deep.png').write_bytes(encode((rgb[..., 0].astype(np.uint16) + 7600), '.png'))
    (folder / 'half.jpg').write_bytes(jpeg[: len(jpeg) // 2])
    (folder / 'empty.jpg').touch()
    (folder / 'text.jpg').write_text('no picture')
    (folder / 'notes.txt').write_text('notes')
    (folder / 'link.jpg').symlink_to(folder / 'nothing')
    (folder / 'sub.jpg').mkdir()
    os.mkfifo(folder / 'pipe.jpg')
    (folder / '._a.jpg').write_bytes(jpeg)
    (folder / '.ipynb_checkpoints').mkdir()


def test_a_folder_as_people_have_them(tmp_path, rgb):
    folder = tmp_path / 'in [1]'
    fill(folder, rgb)
    source = open_source(str(folder))
    items = list(source.items())
    good = [i for i in items if i.image is not None]
    assert all(i.image.shape == rgb.shape and i.image.dtype == np.uint8 for i in good)
    names = [i.file for i in good]
    assert names.index('b2.JPG') < names.index('b10.jpg')
    assert os.fsdecode(b'Stra\xdfe.jpg') in names
    assert {'noending', 'no_end.jpg', 'deep.png', 'äé[x].jpg'} <= set(names)
    assert not any(i.file.startswith('.') for i in items)
    assert len({i.name for i in items if i.image is not None}) == len(good)
    assert {i.name for i in good} >= {'twice.jpg', 'twice.png', 'b2', 'b10'}
    reasons = {i.file: i.reason for i in items if i.image is None}
    assert set(reasons) == {
        'half.jpg',
        'empty.jpg',
        'text.jpg',
        'notes.txt',
        'link.jpg',
        'sub.jpg',
        'pipe.jpg',
    }
    assert 'cut off' in reasons['half.jpg']
    assert all(reasons.values())
    assert len(list(source.frames())) == len(good)
    assert any('intensity_range' in note for note in source.notes)


def test_a_single_picture_of_any_name(tmp_path, rgb):
    for name in (b'Stra\xdfe.jpg', b'plain.JPG', b'noending', '日本.png'.encode()):
        path = tmp_path / os.fsdecode(name)
        path.write_bytes(encode(rgb, '.png'))
        (item,) = open_source(str(path)).items()
        np.testing.assert_array_equal(item.image, rgb)
    assert shown(tmp_path / os.fsdecode(b'a\xdf')).endswith('a\\xdf')


@pytest.mark.parametrize(
    ('name', 'data', 'text'),
    [
        ('cut.jpg', b'\xff\xd8\xff\xe0', 'cut off'),
        ('text.mp4', b'hello', 'no picture, video or bag'),
        ('empty.mp4', b'', 'no picture, video or bag'),
        ('old.bag', b'#ROSBAG V2.0\n', 'rosbags-convert'),
        ('x.mcap', b'', 'cannot be read'),
        ('x.db3', b'SQLite format 3\0' + bytes(40), 'cannot be read'),
    ],
)
def test_what_yields_nothing_is_an_error(name, data, text, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises((SourceError, bags.BagError), match=text):
        list(open_source(str(tmp_path / name)).frames())


def test_folders_without_pictures_say_what_they_have(tmp_path):
    for text, make in (
        ('no pictures', lambda: None),
        ('it has folders, give one: day1', (tmp_path / 'day1').mkdir),
        ('it has videos, give one of them: a.mp4', (tmp_path / 'a.mp4').touch),
    ):
        make()
        with pytest.raises(SourceError, match=text):
            open_source(str(tmp_path))
    with pytest.raises(SourceError, match='proving-ground'):
        open_source(str(tmp_path / 'nothing'))
    for width, height in ((0, 5), (5, 0), (-1, -1)):
        with pytest.raises(SourceError, match='size'):
            open_source('proving-ground', width, height)


def film(path: Path, count: int = 12, size: tuple[int, int] = (48, 64)) -> None:
    with VideoWriter(path, 10.0) as writer:
        for number in range(count):
            writer.write(np.full((*size, 3), number * 10, np.uint8))


def test_videos(tmp_path):
    path = tmp_path / os.fsdecode(b'film \xdf.mp4')
    film(path)
    source = open_source(str(path))
    assert (source.kind, source.rate, source.length) == ('video', 10.0, 12)
    items = list(source.items())
    assert [i.name for i in items[:2]] == ['000000', '000001']
    assert items[5].stamp_ns == 500_000_000
    assert abs(float(items[9].image.mean()) - 90) < 4
    assert source.notes == []
    small = open_source(str(path), 32, 24)
    assert next(small.frames()).shape == (24, 32, 3)


def test_a_video_that_is_left_early_closes(tmp_path):
    """With a level of logging, one of some hundred waited for its codec's threads for ever."""
    import av

    path = tmp_path / 'film.mp4'
    film(path)
    source = open_source(str(path))
    for _ in range(100):
        frames = source.frames()
        next(frames)
        frames.close()
    assert av.logging.get_level() is None


@pytest.mark.parametrize(('quarters', 'matrix'), [(1, (0, 1, -1, 0)), (3, (0, -1, 1, 0))])
def test_a_video_is_upright_by_its_display_matrix(quarters, matrix, tmp_path):
    path = tmp_path / 'phone.mp4'
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 255
    with VideoWriter(path, 10.0) as writer:
        writer.write(image)
    data = bytearray(path.read_bytes())
    at = data.index(b'tkhd') + 44
    for offset, value in zip((0, 4, 12, 16), matrix, strict=True):
        data[at + offset : at + offset + 4] = (value << 16).to_bytes(4, 'big', signed=True)
    path.write_bytes(data)
    (shown_image,) = open_source(str(path)).frames()
    difference = np.abs(shown_image.astype(int) - np.rot90(image, -quarters))
    assert difference.mean() < 20


def test_a_cut_video_says_how_many_frames_it_announced(tmp_path):
    import av

    whole = tmp_path / 'whole.mp4'
    rng = np.random.default_rng(0)
    with av.open(str(whole), 'w', options={'movflags': 'faststart'}) as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for _ in range(12):
            noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(noise, format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = whole.read_bytes()
    cut = tmp_path / 'cut.mp4'
    cut.write_bytes(data[: int(len(data) * 0.6)])
    source = open_source(str(cut))
    count = len(list(source.frames()))
    assert 0 < count < 12
    assert any(f'{count} of the 12 frames' in note for note in source.notes)


def test_a_cut_video_that_counts_no_frames_says_how_long_it_should_be(tmp_path):
    import av

    whole = tmp_path / 'whole.mkv'
    rng = np.random.default_rng(0)
    with av.open(str(whole), 'w') as container:
        stream = container.add_stream('mjpeg', rate=2)
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuvj420p'
        for _ in range(12):
            noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format='rgb24')))
        container.mux(stream.encode())
    source = open_source(str(whole))
    assert len(list(source.frames())) == 12
    assert source.notes == []
    cut = tmp_path / 'cut.mkv'
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source = open_source(str(cut))
    assert 0 < len(list(source.frames())) < 12
    assert any('of the 6.0 s that it announces' in note for note in source.notes)


@pytest.mark.skipif(not INPUTS.is_dir(), reason='the recorded field inputs are not here')
def test_field_inputs():
    turned = next(open_source(str(INPUTS / 'phone_rotated.mp4')).frames())
    assert turned.shape == (320, 240, 3)
    assert len(list(open_source(str(INPUTS / 'av1.mp4')).frames())) == 12
    for name in ('bag_stamps_zero', 'bag_without_metadata', 'bag_metadata_without_qos'):
        assert len(list(open_source(str(INPUTS / name)).frames())) == 6


def frames(rgb: np.ndarray, count: int = 6) -> list[SimulatedFrame]:
    return [SimulatedFrame(np.roll(rgb, i, 1), None, None, None, i * 0.1) for i in range(count)]


SHAPES = ['folder', 'no metadata', 'empty metadata', 'file', 'no qos', 'empty id']


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('storage', bags.STORAGES)
@pytest.mark.parametrize('shape', SHAPES)
def test_bags_of_every_shape(shape, storage, compressed, tmp_path, rgb):
    path = tmp_path / 'bag'
    writing.write_drive(path, frames(rgb), labels='', storage=storage, compressed=compressed)
    meta = path / 'metadata.yaml'
    text = meta.read_text()
    if shape in ('no metadata', 'file'):
        meta.unlink()
    if shape == 'empty metadata':  # the recorder was killed
        meta.write_text('')
    if shape == 'file':
        path = next(path.iterdir())
    if shape == 'no qos':
        # As tools rebuild it, while the storage has the profiles.
        meta.write_text(text.replace('type_description_hash: RIHS', 'type_description_hash: X'))
    if shape == 'empty id':
        meta.write_text(text.replace(f'storage_identifier: {storage}', "storage_identifier: ''"))
    source = open_source(str(path))
    assert source.kind == 'bag'
    assert (source.length, round(source.rate, 3)) == (6, 10.0)
    items = list(source.items())
    assert [i.stamp_ns - writing.DRIVE_START_NS for i in items] == [n * 10**8 for n in range(6)]
    assert np.abs(items[3].image.astype(int) - np.roll(rgb, 3, 1)).mean() < 4


def test_a_bag_that_promises_more_than_it_has(tmp_path, rgb):
    path = tmp_path / 'bag'
    writing.write_drive(path, frames(rgb), labels='', storage='sqlite3')
    with sqlite3.connect(path / 'bag.db3') as base:
        base.execute('DELETE FROM messages WHERE id > 8')
    source = open_source(str(path))
    assert len(list(source.frames())) == 4
    assert any('promises 6 messages on /camera/image_raw, 4 are there' in n for n in source.notes)
    with sqlite3.connect(path / 'bag.db3') as base:
        base.execute('DELETE FROM messages')
    with pytest.raises(bags.BagError, match='has no images; it has /camera/camera_info'):
        open_source(str(path))


def test_a_message_that_makes_no_sense_costs_only_itself(tmp_path, rgb):
    path = tmp_path / 'bag'
    writing.write_drive(path, frames(rgb), labels='', storage='sqlite3')
    with sqlite3.connect(path / 'bag.db3') as base:
        base.execute('UPDATE messages SET data = substr(data, 1, 40) WHERE id = 5')
    source = open_source(str(path))
    assert len(list(source.frames())) == 5
    assert any('a message cannot be read' in note for note in source.notes)
    problems: Counter[str] = Counter()
    assert len(list(grouped(path, [CAMERA], problems, CAMERA))) == 5
    assert [text for text in problems if 'a message cannot be read' in text]
    with pytest.raises(bags.BagError, match='a message cannot be read'):
        list(bags.read_topic(path, CAMERA))


def test_a_damaged_data_base_is_read_up_to_the_damage(tmp_path, rgb):
    path = tmp_path / 'bag'
    writing.write_drive(path, frames(np.tile(rgb, (3, 3, 1))), labels='', storage='sqlite3')
    data = bytearray((path / 'bag.db3').read_bytes())
    data[len(data) // 2 : len(data) // 2 + 9000] = b'\xaa' * 9000
    (path / 'bag.db3').write_bytes(data)
    source = open_source(str(path))
    assert 0 < len(list(source.frames())) < 6
    assert any('bag is damaged, the rest of it is missing' in note for note in source.notes)
    problems: Counter[str] = Counter()
    list(grouped(path, [CAMERA], problems, CAMERA))
    assert [text for text in problems if 'bag is damaged, the rest of it is missing' in text]


def test_metadata_that_says_zero_does_not_hide_messages(tmp_path, rgb):
    path = tmp_path / 'bag'
    writing.write_drive(path, frames(rgb), labels='')
    meta = path / 'metadata.yaml'
    meta.write_text(meta.read_text().replace('message_count: 6', 'message_count: 0'))
    assert len(list(open_source(str(path)).frames())) == 6


def test_an_mcap_of_another_recorder(tmp_path, rgb):
    """Without the profile 'ros2', and with a channel that is not CDR."""
    from mcap.writer import Writer

    path, store = tmp_path / 'x.mcap', bags.typestore()
    with writing.open_writer(tmp_path / 'other') as writer:
        out = writing.MessageWriter(writer)
        message = out.image(out.header(7), rgb, 'rgb8')
    with path.open('wb') as file:
        writer = Writer(file)
        writer.start(profile='', library='somebody')
        schema = writer.register_schema('sensor_msgs/msg/Image', 'ros2msg', b'')
        image = writer.register_channel(CAMERA, 'cdr', schema)
        text = writer.register_channel('/text', 'json', 0)
        data = bytes(store.serialize_cdr(message, 'sensor_msgs/msg/Image'))
        for number in range(3):
            writer.add_message(image, 5 + number, data, 5 + number)
            writer.add_message(text, 5 + number, b'{}', 5 + number)
        writer.finish()
    source = open_source(str(path))
    assert len(list(source.frames())) == 3
    assert source.notes == []


def test_a_missing_part_is_named_and_the_rest_read(tmp_path, rgb):
    path = tmp_path / 'bag'
    writing.write_drive(path, frames(rgb), labels='')
    meta = path / 'metadata.yaml'
    text = meta.read_text()
    meta.write_text(text.replace('- bag.mcap\n', '- bag.mcap\n  - bag_1.mcap\n'))
    source = open_source(str(path))
    assert len(list(source.frames())) == 6
    assert any('bag_1.mcap' in note for note in source.notes)


def test_bad_messages_of_a_bag_are_left_out_by_name(tmp_path, rgb):
    with writing.open_writer(tmp_path / 'bag') as writer:
        out = writing.MessageWriter(writer)
        for number in range(4):
            image = out.image(out.header(10**9 + number), rgb, 'rgb8' if number % 2 else 'rgb9')
            out.put(CAMERA, image, 10**9 + number)
    items = list(open_source(str(tmp_path / 'bag')).items())
    assert [i.image is None for i in items] == [True, False, True, False]
    assert "unknown encoding 'rgb9'" in items[0].reason


def test_topics_are_chosen_by_name(tmp_path, rgb):
    with writing.open_writer(tmp_path / 'bag') as writer:
        out = writing.MessageWriter(writer)
        for topic in ('/left/image_raw', '/right/image_raw', '/depth/image_raw', '/labels/x'):
            out.put(topic, out.image(out.header(5), rgb, 'rgb8'), 5)
    path = str(tmp_path / 'bag')
    with pytest.raises(bags.BagError, match='choose --topic from /left/image_raw, /right'):
        open_source(path)
    assert next(open_source(path, topic='/right/image_raw').frames()).shape == rgb.shape
    with pytest.raises(bags.BagError, match="no image topic '/up'; it has /depth"):
        open_source(path, topic='/up')


# Files --------------------------------------------------------------------------------------


def test_natural_order():
    names = ['a10.png', 'a2.png', 'A1.png', 'b.png', '007.png', '7.png', '10']
    ordered = sorted(names, key=natural)
    assert ordered.index('a2.png') < ordered.index('a10.png')
    assert ordered.index('7.png') < ordered.index('10')


def test_a_video_of_frames_of_other_sizes(tmp_path):
    with VideoWriter(tmp_path / 'x.mp4', 29.97) as writer:
        for number in range(3):
            writer.write(np.full((61 + number, 83, 3), 200, np.uint8))
    assert probe(tmp_path / 'x.mp4').length == 3
    shapes = {f.shape for f in open_source(str(tmp_path / 'x.mp4')).frames()}
    assert shapes == {(60, 82, 3)}
