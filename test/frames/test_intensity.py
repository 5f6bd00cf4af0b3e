# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""More than 8 bits to 8 bits: the picture stays a picture, steadily, and it is said once."""

from __future__ import annotations

import types

import numpy as np
import pytest

from ood_perception.frames.decode import decode
from ood_perception.frames.intensity import Intensity
from ood_perception.frames.picture import BadImage, encode


@pytest.fixture(scope='module')
def scene() -> np.ndarray:
    """A picture of 0..1 that reaches both ends: slopes, a bright disc, some noise."""
    v, u = np.mgrid[0:120, 0:160]
    noise = np.random.default_rng(0).normal(0, 0.01, (120, 160))
    disc = 0.4 * ((v - 60) ** 2 + (u - 90) ** 2 < 400)
    return np.clip(0.02 + 0.5 * u / 160 * v / 120 + disc + noise, 0, 1)


def message(values: np.ndarray, encoding: str) -> types.SimpleNamespace:
    height, width = values.shape[:2]
    data = np.ascontiguousarray(values).view(np.uint8).ravel()
    return types.SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(values.dtype.byteorder == '>'),
        step=data.size // height,
        data=data,
    )


def faults(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """A dead and a hot pixel, and a dead column."""
    values = values.copy()
    values[3, 5], values[50, 60], values[:, 77] = low, high, low
    return values


CASES = {
    'mono16 of 10 bits': ('mono16', lambda s: (s * 1023).astype('<u2')),
    'mono16 of 12 bits': ('mono16', lambda s: (s * 4095).astype('<u2')),
    'mono16 of 12 bits, upper': ('mono16', lambda s: (s * 4095).astype('<u2') << 4),
    'mono16 of 14 bits, big endian': ('mono16', lambda s: (s * 16383).astype('>u2')),
    'mono16 of 16 bits': ('mono16', lambda s: (s * 65535).astype('<u2')),
    'mono16 that holds 8 bits': ('mono16', lambda s: (s * 255).astype('<u2')),
    '12 bits with hot pixels': ('mono16', lambda s: faults((s * 4095).astype('<u2'), 0, 65535)),
    'thermal': ('16UC1', lambda s: (7600 + s * 1020).astype('<u2')),
    'thermal, hot pixels': ('16UC1', lambda s: faults((7600 + s * 900).astype('u2'), 0, 65535)),
    'thermal mono16': ('mono16', lambda s: (7600 + s * 1020).astype('<u2')),
    'kelvin': ('32FC1', lambda s: (280 + s * 30).astype('<f4')),
    'kelvin, hot pixels': ('32FC1', lambda s: faults((280 + s * 30).astype('f4'), -1e30, 1e30)),
    'celsius below zero': ('64FC1', lambda s: (-20 + s * 50).astype('<f8')),
    'floats of 0..1': ('32FC1', lambda s: s.astype('<f4')),
    'floats of 0..1 and one of 5': ('32FC1', lambda s: faults(s.astype('<f4'), 0, 5)),
    'floats of 0..255': ('32FC1', lambda s: (s * 255).astype('<f4')),
    'signed counts': ('16SC1', lambda s: (s * 2000 - 1000).astype('<i2')),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_the_picture_is_seen(name, scene):
    encoding, make = CASES[name]
    got = decode(message(make(scene), encoding))[..., 0]
    good = np.ones(scene.shape, bool)
    good[:, 77] = good[3, 5] = good[50, 60] = False
    assert np.corrcoef(got[good], scene[good])[0, 1] > 0.99
    # It uses the range as an 8-bit camera would.
    assert got[good].std() > 0.6 * (scene * 255)[good].std()
    whole = '12 bits' in name or '0..' in name or 'of 1' in name or 'holds' in name
    if whole and 'one of' not in name:
        assert np.abs(got[good] - scene[good] * 255).max() <= 1.5


@pytest.mark.parametrize('form', ['mono16; png compressed ', 'png', '16UC1; png compressed'])
def test_deep_png_in_a_topic(form, scene):
    data = encode((7600 + scene * 1020).astype(np.uint16), '.png')
    got = decode(types.SimpleNamespace(format=form, data=data))
    assert np.corrcoef(got[..., 0].ravel(), scene.ravel())[0, 1] > 0.99


def test_a_bayer_mosaic_of_12_bits_keeps_its_colours(scene):
    rgb = np.stack([scene, scene * 0.5, np.full_like(scene, 0.2)], -1)
    mosaic = np.empty(scene.shape)
    for i, letter in enumerate('rggb'):
        y, x = divmod(i, 2)
        mosaic[y::2, x::2] = rgb[y::2, x::2, 'rgb'.index(letter)]
    got = decode(message((mosaic * 4095).astype('<u2'), 'bayer_rggb16'))
    inner = got[2:-2, 2:-2].astype(float) - rgb[2:-2, 2:-2] * 255
    assert np.abs(inner).mean() < 4
    assert got[..., 2].std() < 3


def test_the_range_is_steady_and_said_once(scene):
    told: list[str] = []
    intensity = Intensity()
    rng = np.random.default_rng(1)
    means = []
    for number in range(20):
        counts = 7600 + scene * 1020 + rng.normal(0, 4, scene.shape)
        if number == 7:
            counts[:40, :50] = 8900  # something hot passes
        got = decode(message(counts.astype('<u2'), 'mono16'), 10**8, told.append, intensity)
        means.append(got[60:].mean())
    assert max(means) - min(means) < 12
    assert len(told) == 1
    assert 'mono16' in told[0]
    assert 'intensity_range' in told[0]


def test_another_encoding_begins_anew(scene):
    intensity = Intensity()
    decode(message((scene * 65535).astype('<u2'), 'mono16'), intensity=intensity)
    floats = message(scene.astype('<f4'), '32FC1')
    np.testing.assert_array_equal(decode(floats, intensity=intensity), decode(floats))


def test_a_dark_start_does_not_blind_the_stream(scene):
    intensity = Intensity()
    for _ in range(3):
        assert not decode(
            message(np.zeros(scene.shape, '<u2'), 'mono16'), intensity=intensity
        ).any()
    got = decode(message((scene * 4095).astype('<u2'), 'mono16'), intensity=intensity)
    assert np.abs(got[..., 0] - scene * 255).max() <= 1.5
    # A dark frame of a camera whose depth is known stays dark.
    dark = decode(message((scene * 200).astype('<u2'), 'mono16'), intensity=intensity)
    assert dark.max() <= 13


def test_the_range_comes_back_after_a_flash(scene):
    intensity = Intensity()
    white = np.full(scene.shape, 65000, '<u2')
    thermal = (7600 + scene * 1020).astype('<u2')
    decode(message(white, 'mono16'), intensity=intensity)
    for _ in range(3):
        got = decode(message(thermal, 'mono16'), intensity=intensity)
    assert got.std() > 20


def test_a_uniform_scene_is_not_made_of_noise():
    counts = (8000 + np.random.default_rng(0).integers(0, 3, (60, 80))).astype('<u2')
    assert decode(message(counts, '16UC1')).std() < 40
    same = decode(message(np.full((60, 80), 9, '<u2'), '16UC1'))
    assert same.min() == same.max()


def test_a_fixed_range_is_kept():
    values = np.tile(np.array([0, 100, 160, 200, 300], '<u2'), (20, 8))
    told: list[str] = []
    got = decode(message(values, 'mono16'), 10**8, told.append, Intensity((100, 200)))
    assert got[0, :5, 0].tolist() == [0, 0, 153, 255, 255]
    assert told == []
    for bad in ((5, 5), (9, 1), (0, float('nan'))):
        with pytest.raises(ValueError, match='low < high'):
            Intensity(bad)


def test_what_is_not_finite_is_reported_and_filled():
    values = np.full((60, 80), 0.5, '<f4')
    values[0, :3] = np.nan, np.inf, -np.inf
    told: list[str] = []
    got = decode(message(values, '32FC1'), warn=told.append)
    assert (got == 128).all()
    assert told == ['3 of 4800 values of a 32FC1 image are NaN or infinite']
    with pytest.raises(BadImage, match='finite'):
        decode(message(np.full((60, 80), np.nan, '<f4'), '32FC1'))
