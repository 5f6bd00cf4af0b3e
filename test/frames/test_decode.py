# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import array
import re

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('rclpy')
from sensor_msgs.msg import CompressedImage, Image

from ood_perception.frames.colour import ENCODINGS as DEVICE_ENCODINGS
from ood_perception.frames.colour import to_rgb
from ood_perception.frames.decode import (
    ENCODINGS,
    MAX_PIXELS,
    BadImage,
    decode,
    raw_frame,
)

HEIGHT, WIDTH = 24, 34


def message(encoding: str, rows: np.ndarray, width: int, padding: int = 0, big: bool = False):
    """Image message of uint8 rows (rows, bytes), each followed by `padding` bytes of rubbish."""
    padded = np.full((rows.shape[0], rows.shape[1] + padding), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    height = round(rows.shape[0] / {'nv12': 1.5, 'nv21': 1.5, 'nv24': 3}.get(encoding, 1))
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big),
        step=padded.shape[1],
        data=array.array('B', padded.tobytes()),
    )


@pytest.fixture
def rgb() -> np.ndarray:
    """A smooth picture, so that subsampled chroma can be compared."""
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([u * 6, v * 9, 255 - u * 3 - v * 4], -1).astype(np.uint8)


def flat(pixels: np.ndarray) -> np.ndarray:
    contiguous = np.ascontiguousarray(pixels)
    return contiguous.view(np.uint8).reshape(pixels.shape[0], -1)


def encode(name: str, rgb: np.ndarray) -> np.ndarray:
    """Write an RGB picture in an encoding by its definition, independent of the decoder."""
    bgr = rgb[..., ::-1]
    alpha = np.full((*rgb.shape[:2], 1), 7, np.uint8)
    grey = rgb[..., 1]
    simple = {
        'rgb8': rgb,
        'bgr8': bgr,
        '8UC3': bgr,
        'rgba8': np.concatenate([rgb, alpha], -1),
        'bgra8': np.concatenate([bgr, alpha], -1),
        '8UC4': np.concatenate([bgr, alpha], -1),
        'mono8': grey,
        '8UC1': grey,
    }
    if name in simple:
        return flat(simple[name])
    wide = {
        'rgb16': rgb,
        'bgr16': bgr,
        'rgba16': np.concatenate([rgb, alpha], -1),
        'bgra16': np.concatenate([bgr, alpha], -1),
        'mono16': grey,
    }
    if name in wide:
        return flat((wide[name].astype('<u2') << 8) + 99)
    if opencv := re.fullmatch(r'(8S|16U|16S|32S|32F|64F)C(\d)', name):
        pixels = {'1': grey, '3': bgr, '4': np.concatenate([bgr, alpha], -1)}[opencv[2]]
        if opencv[1] == '16U':
            return flat((pixels.astype('<u2') << 8) + 99)
        if opencv[1] in ('32F', '64F'):
            return flat((pixels / 255).astype({'32F': '<f4', '64F': '<f8'}[opencv[1]]))
        if opencv[1] == '8S':
            return flat((pixels // 2).astype('i1'))
        return flat(pixels.astype({'16S': '<i2', '32S': '<i4'}[opencv[1]]) * 16)
    if name.startswith('bayer'):
        mosaic = np.empty(rgb.shape[:2], np.uint8)
        for i, letter in enumerate(name[6:10]):
            y, x = divmod(i, 2)
            mosaic[y::2, x::2] = rgb[y::2, x::2, 'rgb'.index(letter)]
        return flat(mosaic.astype('<u2') << 8) if name.endswith('16') else mosaic
    # BT.601, limited range
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    luma = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    cb = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    cr = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    luma, cb, cr = (np.rint(p).astype(np.uint8) for p in (luma, cb, cr))
    out = np.empty((HEIGHT, WIDTH * 2), np.uint8)
    if name in ('yuv422', 'uyvy'):
        out[:, 1::2], out[:, 0::4], out[:, 2::4] = luma, cb[:, ::2], cr[:, ::2]
        return out
    if name in ('yuv422_yuy2', 'yuyv'):
        out[:, 0::2], out[:, 1::4], out[:, 3::4] = luma, cb[:, ::2], cr[:, ::2]
        return out
    if name == 'nv24':
        chroma = np.stack([cb, cr], -1).reshape(2 * HEIGHT, WIDTH)
        return np.concatenate([luma, chroma])
    first, second = (cb, cr) if name == 'nv12' else (cr, cb)
    chroma = np.empty((HEIGHT // 2, WIDTH), np.uint8)
    chroma[:, ::2], chroma[:, 1::2] = first[::2, ::2], second[::2, ::2]
    return np.concatenate([luma, chroma])


@pytest.mark.parametrize('padding', [0, 13])
@pytest.mark.parametrize('name', ENCODINGS)
def test_encodings(name, padding, rgb):
    got = decode(message(name, encode(name, rgb), WIDTH, padding))
    assert got.shape == (HEIGHT, WIDTH, 3)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    if 'mono' in name or name.endswith('C1'):
        want, tolerance = np.repeat(rgb[..., 1:2], 3, -1), 0
        if name.startswith('8S'):
            want, tolerance = want // 2, 1
        tolerance = max(tolerance, int(name[:4] in ('16SC', '32SC')))
    elif name.startswith('8S'):
        want, tolerance = rgb // 2, 1
    elif name[:4] in ('16SC', '32SC'):
        want, tolerance = rgb, 1
    else:
        tolerance = {'b': 12, 'y': 10, 'u': 10, 'n': 18}.get(name[0], 0)
        tolerance = 0 if name.startswith(('bgr', 'bgra')) else tolerance
        want = rgb
    # The border of a Bayer image is interpolated from one side only.
    inner = (slice(2, -2), slice(2, -2))
    difference = np.abs(got[inner].astype(int) - want[inner].astype(int))
    assert difference.max() <= tolerance


def test_every_encoding_was_seen():
    assert len(set(ENCODINGS)) == len(ENCODINGS) >= 24


def test_unpadded_rgb8_is_not_copied(rgb):
    source = message('rgb8', flat(rgb), WIDTH)
    got = decode(source)
    assert np.shares_memory(got, np.frombuffer(source.data, np.uint8))


def test_last_row_without_padding(rgb):
    source = message('bgr8', flat(rgb[..., ::-1]), WIDTH, padding=10)
    source.data = source.data[:-10]
    assert np.array_equal(decode(source), rgb)
    source.data = source.data[:-1]
    with pytest.raises(BadImage, match='truncated'):
        decode(source)


@pytest.mark.parametrize('big', [False, True])
def test_endianness(big):
    grey = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 65536 * 77
    rows = flat(grey.astype('>u2' if big else '<u2'))
    got = decode(message('mono16', rows, WIDTH, big=big))
    assert np.array_equal(got[..., 0], (grey % 65536) >> 8)
    floats = (grey / grey.max()).astype('>f4' if big else '<f4')
    got = decode(message('32FC1', flat(floats), WIDTH, big=big))
    assert np.abs(got[..., 0] - floats * 255).max() <= 0.51


def test_nan_is_reported_and_filled():
    values = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    told: list[str] = []
    got = decode(message('32FC1', flat(values), WIDTH), warn=told.append)
    assert (got == 128).all()
    assert told == [f'3 of {HEIGHT * WIDTH} values of a 32FC1 image are NaN or infinite']
    with pytest.raises(BadImage, match='finite'):
        decode(message('32FC1', flat(np.full_like(values, np.nan)), WIDTH))


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'encoding': 'quaternion8'}, "unknown encoding 'quaternion8'"),
        ({'encoding': ''}, 'unknown encoding'),
        ({'height': 0}, 'image of 34x0'),
        ({'width': 0, 'height': 0}, 'image of 0x0'),
        ({'width': 1, 'height': 1, 'step': 3}, 'image of 1x1'),
        ({'width': 8000, 'height': 6000}, 'megapixels'),
        ({'width': 4_000_000_000, 'height': 4_000_000_000}, 'megapixels'),
        ({'step': WIDTH * 3 - 1}, 'smaller than a row'),
        ({'step': 0}, 'smaller than a row'),
        ({'step': 4_000_000_000}, 'truncated'),
        ({'data': array.array('B')}, 'truncated: 0 bytes'),
        ({'data': array.array('B', bytes(100))}, 'truncated: 100 bytes'),
        ({'encoding': 'nv12', 'height': 23}, 'even sides'),
        ({'encoding': 'uyvy', 'width': 33, 'step': 66}, 'even width'),
    ],
)
def test_bad_images(changes, text, rgb):
    source = message('rgb8', flat(rgb), WIDTH)
    for name, value in changes.items():
        setattr(source, name, value)
    with pytest.raises(BadImage, match=text):
        decode(source)


def compressed(suffix: str, pixels: np.ndarray, form: str) -> CompressedImage:
    _, data = cv2.imencode(suffix, pixels)
    return CompressedImage(format=form, data=array.array('B', data.tobytes()))


@pytest.mark.parametrize('form', ['jpeg', 'jpg', 'rgb8; jpeg compressed bgr8', 'png', ''])
def test_compressed(form, rgb):
    got = decode(compressed('.png', rgb[..., ::-1], form))
    assert np.array_equal(got, rgb)
    got = decode(compressed('.jpg', rgb[..., ::-1], form))
    assert np.abs(got.astype(int) - rgb).mean() < 6


def test_grey_and_deep_png(rgb):
    grey = decode(compressed('.png', rgb[..., 0], 'mono8; png compressed mono8'))
    assert np.array_equal(grey, np.repeat(rgb[..., :1], 3, -1))
    deep = decode(compressed('.png', rgb[..., 0].astype(np.uint16) << 8, 'mono16; png compressed'))
    assert np.abs(deep[..., 1].astype(int) - rgb[..., 0]).max() <= 1


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_cut_off_files_at_every_length(suffix, rgb):
    whole = compressed(suffix, rgb, 'jpeg')
    data, want = whole.data, decode(whole)
    taken = 0
    for length in range(len(data)):
        whole.data = data[:length]
        try:
            # What is accepted is the whole picture: only its end marker was missing.
            assert np.array_equal(decode(whole), want)
            taken += 1
        except BadImage:
            assert length < len(data) - (2 if suffix == '.jpg' else 4)
    assert taken <= 16


def test_padding_after_a_jpeg_is_fine(rgb):
    whole = compressed('.jpg', rgb[..., ::-1], 'jpeg')
    want = decode(whole)
    whole.data = whole.data + array.array('B', bytes(100))
    assert np.array_equal(decode(whole), want)


def test_compressed_size_is_checked_before_decoding():
    header = b'\xff\xd8\xff\xc0\x00\x11\x08' + (60000).to_bytes(2, 'big') * 2 + bytes(10)
    bomb = header + b'\xff\xda\x00\x02\xff\xd9'
    with pytest.raises(BadImage, match='megapixels'):
        decode(CompressedImage(format='jpeg', data=array.array('B', bomb)))
    assert MAX_PIXELS < 60000 * 60000


def test_what_is_no_picture():
    depth = CompressedImage(format='16UC1; compressedDepth png', data=array.array('B', bytes(99)))
    with pytest.raises(BadImage, match='depth'):
        decode(depth)
    with pytest.raises(BadImage, match='are no picture'):
        decode(CompressedImage(format='jpeg', data=array.array('B', b'no picture')))


def test_random_damage_never_raises_anything_else(rgb):
    rng = np.random.default_rng(0)
    sources = [message(name, encode(name, rgb), WIDTH) for name in ('rgb8', 'nv12', 'bayer_rggb8')]
    files = [compressed(s, rgb, 'x') for s in ('.jpg', '.png')]
    outcomes = {'good': 0, 'bad': 0}
    for i in range(600):
        source = (sources + files)[i % 5]
        if isinstance(source, CompressedImage):
            data = np.frombuffer(source.data, np.uint8).copy()
            data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            damaged = CompressedImage(format='x', data=array.array('B', data.tobytes()))
        else:
            damaged = Image(
                height=int(rng.choice([source.height, rng.integers(0, 1 << 32)])),
                width=int(rng.choice([source.width, rng.integers(0, 100)])),
                step=int(rng.choice([source.step, rng.integers(0, 1 << 32)])),
                encoding=str(rng.choice([source.encoding, 'rgb16', 'bayer_grbg8', '\0'])),
                data=source.data[: int(rng.integers(0, len(source.data)))],
            )
        try:
            got = decode(damaged)
            assert got.dtype == np.uint8
            assert got.ndim == 3
            outcomes['good'] += 1
        except BadImage:
            outcomes['bad'] += 1
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize('padding', [0, 6])
@pytest.mark.parametrize('name', DEVICE_ENCODINGS)
def test_raw_frames_become_the_same_picture_on_the_device(name, padding, rgb):
    source = message(name, encode(name, rgb), WIDTH, padding)
    raw = raw_frame(source)
    assert raw.shape == (HEIGHT, WIDTH, 3)
    got = to_rgb(torch.as_tensor(raw.data), raw).permute(1, 2, 0).numpy()
    inner = (slice(2, -2), slice(2, -2))
    difference = np.abs(got[inner].astype(int) - decode(source)[inner].astype(int))
    assert difference.max() <= (12 if name.startswith(('nv', 'y', 'u')) else 1)


def test_raw_frames_are_checked_and_refuse_what_the_device_cannot(rgb):
    assert raw_frame(message('mono16', encode('mono16', rgb), WIDTH)) is None
    assert raw_frame(CompressedImage(format='jpeg')) is None
    source = message('bgr8', flat(rgb), WIDTH)
    source.data = source.data[:-1]
    with pytest.raises(BadImage, match='truncated'):
        raw_frame(source)
    source = message('nv12', encode('nv12', rgb), WIDTH)
    source.height = 23
    with pytest.raises(BadImage, match='even'):
        raw_frame(source)
