# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Picture files: kinds, orientation, end markers, formats of topics, and what is refused."""

from __future__ import annotations

import io
import types
from importlib import metadata

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ood_perception.frames import bridge
from ood_perception.frames.decode import decode
from ood_perception.frames.picture import (
    BadImage,
    complete_jpeg,
    decode_file,
    encode,
    kind_of,
    orientation,
    to_rgb8,
    upright,
)


@pytest.fixture(scope='module')
def rgb() -> np.ndarray:
    v, u = np.mgrid[0:40, 0:60]
    return np.stack([u * 4, v * 6, 255 - u * 2 - v * 3], -1).astype(np.uint8)


def saved(pixels: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    try:
        Image.fromarray(pixels).save(file, kind, **options)
    except (KeyError, OSError) as error:
        pytest.skip(f'Pillow was built without {kind}: {error}')
    return file.getvalue()


def topic(data: bytes, form: str = '') -> types.SimpleNamespace:
    return types.SimpleNamespace(data=data, format=form)


@pytest.mark.parametrize(
    'kind', ['JPEG', 'PNG', 'TIFF', 'BMP', 'WEBP', 'GIF', 'AVIF', 'JPEG2000', 'PPM']
)
def test_every_kind_in_files_and_topics(kind, rgb):
    data = saved(rgb, kind)
    assert kind_of(data)
    assert np.abs(decode_file(data).astype(int) - rgb).mean() < 4
    assert np.abs(decode(topic(data, 'rgb8')).astype(int) - rgb).mean() < 4


@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'LA', 'RGBA', 'CMYK', 'I;16'])
def test_kinds_of_pixels(mode, rgb):
    kind = 'JPEG' if mode == 'CMYK' else 'PNG'
    if mode == 'I;16':
        data = saved(rgb[..., 0].astype(np.uint16) << 8, kind)
    else:
        file = io.BytesIO()
        Image.fromarray(rgb).convert(mode).save(file, kind)
        data = file.getvalue()
    got = to_rgb8(decode_file(data))
    assert got.shape == rgb.shape
    want = np.array(Image.open(io.BytesIO(data)).convert('RGB')) if mode != 'I;16' else rgb
    assert np.abs(got[..., 0].astype(int) - want[..., 0]).mean() < 4


@pytest.mark.parametrize('pixels', ['<f4', '<u2'])
def test_deep_tiff(pixels, rgb):
    values = rgb[..., 0].astype(pixels) * 17 + 300
    got = decode_file(cv2.imencode('.tiff', values)[1].tobytes())
    np.testing.assert_array_equal(got, values)
    assert to_rgb8(got).std() > 30


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('exif', range(1, 9))
def test_files_are_upright_and_topics_as_stored(exif, kind, rgb):
    tags = Image.Exif()
    tags[0x0112] = exif
    data = saved(rgb, kind, exif=tags)
    stored = np.array(Image.open(io.BytesIO(data)).convert('RGB'))
    stored = rgb if kind == 'TIFF' else stored
    want = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))
    assert orientation(data) == exif
    np.testing.assert_array_equal(decode(topic(data)), stored)
    np.testing.assert_array_equal(upright(decode_file(data), exif), want)


def test_damaged_exif_changes_nothing(rgb):
    data = saved(rgb, 'JPEG', exif=b'Exif\0\0MM\0*\xff\xff\xff\xff')
    assert orientation(data) == 1
    assert decode_file(data).shape == rgb.shape


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'subsampling': 0}])
@pytest.mark.parametrize('tail', [b'', b'\0' * 64, b'\0' * 5000])
def test_a_jpeg_without_its_end_marker(tail, options, rgb):
    whole = saved(rgb, 'JPEG', quality=90, **options)
    want = decode_file(whole)
    body = whole[:-2]
    assert body.find(b'\xff\xd9', 300) < 0
    np.testing.assert_array_equal(decode_file(body + tail), want)
    np.testing.assert_array_equal(decode(topic(body + tail, 'jpeg')), want)
    for share in (0.98, 0.9, 0.6, 0.3) if not options else (0.8, 0.5):
        # What a progressive file lacks at its end are the last bits of the coefficients.
        with pytest.raises(BadImage, match=r'cut off|damaged'):
            complete_jpeg(whole[: int(len(whole) * share)] + tail)


def test_grey_and_restart_markers_without_an_end(rgb):
    options = [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    for pixels in (rgb[..., 0], rgb):
        data = cv2.imencode('.jpg', pixels, options)[1].tobytes()
        assert np.array_equal(decode_file(data[:-2]), decode_file(data))
        with pytest.raises(BadImage, match='cut off'):
            decode_file(data[: len(data) // 2])


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_a_mosaic_in_a_compressed_topic(pattern, bits, rgb):
    mosaic = np.empty(rgb.shape[:2], np.uint8)
    for i, letter in enumerate(pattern):
        y, x = divmod(i, 2)
        mosaic[y::2, x::2] = rgb[y::2, x::2, 'rgb'.index(letter)]
    pixels = mosaic if bits == 8 else mosaic.astype(np.uint16) << 4
    data = encode(pixels, '.png')
    for form in (f'bayer_{pattern}{bits}; png compressed ', f'bayer_{pattern}{bits};png'):
        got = decode(topic(data, form)).astype(int)
        assert np.abs(got[2:-2, 2:-2] - rgb[2:-2, 2:-2]).max() <= 12
    if bits == 8:
        tripled = encode(np.repeat(mosaic[..., None], 3, -1), '.png')
        form = f'bayer_{pattern}8; jpeg compressed mono8'
        got = decode(topic(tripled, form)).astype(int)
        assert np.abs(got[2:-2, 2:-2] - rgb[2:-2, 2:-2]).max() <= 12
        # The transport converted it already.
        colour = decode(topic(encode(rgb, '.png'), f'bayer_{pattern}8; png compressed bgr8'))
        np.testing.assert_array_equal(colour, rgb)


def test_a_format_that_does_not_fit_is_named(rgb):
    told: list[str] = []
    form = 'rgb8; jpeg compressed bgr8'
    decode(topic(encode(rgb[..., 0], '.png'), form), warn=told.append)
    assert 'says colour, the file is grey' in told[0]
    decode(topic(encode(rgb, '.png'), form), warn=told.append)
    assert len(told) == 1


@pytest.mark.parametrize(
    ('form', 'data', 'text'),
    [
        ('h264', b'\0\0\0\1\x67abc', 'in_transport:=ffmpeg'),
        ('', b'\0\0\0\1\x67abc', 'in_transport:=ffmpeg'),
        ('hevc', b'\0\0\1\x40abc', 'in_transport:=ffmpeg'),
        ('av1', b'\x12\0\x0a', 'republish'),
        ('ffmpeg; libx264', b'abc', 'republish'),
        ('theora', b'\x80theora\3', 'in_transport:=theora'),
        ('zstd', b'\x28\xb5\x2f\xfdabc', 'in_transport:=zstd'),
        ('rgb8', bytes(640), 'no picture'),
        ('jpeg', b'', 'no picture'),
        ('heic', b'\0\0\0\x18ftypheic' + bytes(40), 'HEIC'),
        ('16UC1; compressedDepth png', b'\x89PNG', 'depth'),
    ],
)
def test_what_is_no_picture_says_what_to_do(form, data, text):
    with pytest.raises(BadImage, match=text):
        decode(topic(data, form))


@pytest.mark.parametrize(
    ('encoding', 'near'),
    [('BayerRG8', 'bayer'), ('rgb', 'rgb8'), ('mono12', 'mono16'), ('yuv420', 'yuv422')],
)
def test_a_wrong_name_of_an_encoding_gets_the_nearest(encoding, near):
    image = types.SimpleNamespace(
        height=20, width=20, encoding=encoding, step=60, data=bytes(1200)
    )
    image.is_bigendian = 0
    with pytest.raises(BadImage, match=f"should call it '{near}"):
        decode(image)


@pytest.mark.parametrize('padding', [0, 2])
@pytest.mark.parametrize('name', bridge.ENCODINGS)
def test_cv_bridge_gives_the_same_picture(name, padding, monkeypatch):
    """The distribution's; where there is none, PyPI's of ROS 1 stands in for it, here only."""
    theirs = pytest.importorskip('cv_bridge').CvBridge()
    from sensor_msgs.msg import Image as Message

    step = 34 * bridge.ENCODINGS[name] + padding
    data = np.random.default_rng(0).integers(0, 256, 24 * step, np.uint8).tobytes()
    message = Message(height=24, width=34, encoding=name, step=step, data=data)
    monkeypatch.setattr(bridge, 'bridge', lambda: None)
    ours = decode(message)
    monkeypatch.setattr(bridge, 'bridge', lambda: theirs)
    if padding:
        assert bridge.to_rgb(message) is None  # cv_bridge would shear it
        np.testing.assert_array_equal(ours, decode(message))
        return
    got = bridge.to_rgb(message)
    if got is None and metadata.version('cv_bridge').startswith('1.'):
        pytest.skip(f"PyPI's cv_bridge does not convert {name}")
    np.testing.assert_array_equal(got, ours)


def test_ros_1_s_cv_bridge_is_not_taken():
    try:
        version = metadata.version('cv_bridge')
    except metadata.PackageNotFoundError:
        pytest.skip('no package cv_bridge')
    if version.startswith('1.'):
        assert bridge.bridge() is None


def test_encoding_says_what_it_refuses():
    with pytest.raises(ValueError, match='jpg'):
        encode(np.zeros((1, 70000), np.uint8), '.jpg')
