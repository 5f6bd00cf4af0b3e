# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Pixels and metres against a camera that is simulated point by point."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from ood_perception.frames import depth
from ood_perception.frames.geometry import BadCameraInfo, Camera, is_rectified, size_note

SENSOR = (640, 480)
K = (410.0, 0.0, 323.5, 0.0, 405.0, 236.25, 0.0, 0.0, 1.0)
P = (380.0, 0.0, 310.0, -45.0, 0.0, 385.0, 244.0, 0.0, 0.0, 0.0, 1.0, 0.0)
LENSES = {
    'straight': ('plumb_bob', (0.0,) * 5),
    'unnamed': ('', ()),
    'plumb_bob': ('plumb_bob', (-0.28, 0.09, 0.0012, -0.0008, -0.01)),
    'plumb_bob of 4': ('plumb_bob', (0.12, -0.15, 0.002, 0.001)),
    'rational': ('rational_polynomial', (8.2, 5.1, 0.001, 0.0007, 0.31, 8.5, 7.2, 1.1)),
    'fisheye': ('equidistant', (-0.02, 0.011, -0.004, 0.0005)),
    'ideal fisheye': ('equidistant', (0.0,) * 4),
}
WINDOWS = {'whole': (0, 0, 0, 0), 'cut': (160, 120, 320, 240), 'odd': (7, 33, 501, 333)}
"""x_offset, y_offset, width, height of the roi."""


def camera_info(lens: str = 'straight', roi=(0, 0, 0, 0), binning=(0, 0), **changes):
    model, d = LENSES[lens]
    info = {
        'width': SENSOR[0],
        'height': SENSOR[1],
        'distortion_model': model,
        'd': d,
        'k': K,
        'p': P,
        'binning_x': binning[0],
        'binning_y': binning[1],
        'roi': SimpleNamespace(
            **dict(zip(('x_offset', 'y_offset', 'width', 'height'), roi, strict=True))
        ),
    }
    return SimpleNamespace(**{**info, **changes})


def bend(lens: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a lens does to a ray, by the published formulas."""
    model, d = LENSES[lens]
    if not any(d) and model != 'equidistant':
        return x, y
    r2 = x * x + y * y
    if model == 'equidistant':
        r = np.sqrt(r2)
        angle = np.arctan(r)
        bent = angle * (1 + sum(c * angle ** (2 * i + 2) for i, c in enumerate(d)))
        factor = np.divide(bent, r, out=np.ones_like(r), where=r > 0)
        return x * factor, y * factor
    k1, k2, p1, p2, k3, k4, k5, k6 = (*d, *(0.0,) * (8 - len(d)))
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


def image_size(roi, binning, resize) -> tuple[int, int]:
    width, height = roi[2:] if roi[2] else SENSOR
    width, height = width // max(binning[0], 1), height // max(binning[1], 1)
    return round(width * resize), round(height * resize)


@pytest.mark.parametrize('lens', LENSES)
@pytest.mark.parametrize(
    ('window', 'binning', 'resize'),
    [
        *itertools.product(WINDOWS, [(0, 0), (1, 1), (2, 2), (4, 2), (3, 3)], [1.0]),
        ('whole', (0, 0), 0.5),
        ('whole', (0, 0), 2.0),
        ('whole', (2, 2), 0.5),
        ('cut', (0, 0), 0.25),
    ],
)
def test_a_pixel_looks_where_its_light_came_from(lens, window, binning, resize):
    """Sensor, window, binning and resize are applied one after the other to simulated points."""
    roi = WINDOWS[window]
    width, height = image_size(roi, binning, resize)
    rng = np.random.default_rng(5)
    rays = rng.uniform((-0.55, -0.42), (0.55, 0.42), (500, 2))
    x, y = bend(lens, rays[:, 0], rays[:, 1])
    u, v = K[0] * x + K[2], K[4] * y + K[5]  # on the sensor
    u, v = (u - roi[0]) / max(binning[0], 1), (v - roi[1]) / max(binning[1], 1)
    whole = roi[2:] if roi[2] else SENSOR
    if resize != 1:
        u = u * width / (whole[0] / max(binning[0], 1))
        v = v * height / (whole[1] / max(binning[1], 1))
    camera = Camera.from_info(camera_info(lens, roi, binning), height, width)
    assert np.abs(camera.rays(u, v) - rays).max() < 1e-4
    note, remedy = size_note(camera_info(lens, roi, binning), height, width)
    assert bool(note) == bool(remedy) == (resize != 1)
    if note:
        assert f'{width}x{height}' in note
        assert '640x480' in note


@pytest.mark.parametrize('roi', WINDOWS.values())
@pytest.mark.parametrize('binning', [(0, 0), (2, 2)])
def test_a_rectified_image_goes_by_its_projection(roi, binning):
    width, height = image_size(roi, binning, 1)
    info = camera_info('plumb_bob', roi, binning)
    camera = Camera.from_info(info, height, width, rectified=True)
    factor = max(binning[0], 1)
    u, v = np.array([0.0, 40.0]), np.array([0.0, 30.0])
    expected = np.stack(
        [(u * factor + roi[0] - P[2]) / P[0], (v * factor + roi[1] - P[6]) / P[5]], -1
    )
    assert np.allclose(camera.rays(u, v), expected)


def test_light_from_beyond_the_lens_has_no_direction():
    assert np.isnan(Camera(100, 100, 50, 50, 'equidistant', (0.0,) * 4).rays([250], [50])).all()
    strong = Camera(400, 400, 320, 240, 'plumb_bob', (-0.35, 0, 0, 0))
    rays = strong.rays(np.array([320, 0]), np.array([240, 0]))
    assert np.isfinite(rays[0]).all()
    assert np.isnan(rays[1]).all()
    assert strong.rays(np.empty(0), np.empty(0)).shape == (0, 2)


@pytest.mark.parametrize(
    ('changes', 'size', 'words'),
    [
        ({'k': (0.0,) * 9}, SENSOR, 'without calibration'),
        ({'k': (np.nan, *K[1:])}, SENSOR, 'without calibration'),
        ({'k': (-410.0, *K[1:])}, SENSOR, 'without calibration'),
        ({'distortion_model': 'double_sphere'}, SENSOR, "'double_sphere' cannot be undone"),
        ({'distortion_model': 'thin_prism', 'd': (0.0,) * 12}, SENSOR, "'thin_prism'"),
        ({'distortion_model': '', 'd': (0.1, 0, 0, 0, 0)}, SENSOR, "'' cannot be undone"),
        ({'distortion_model': 'plumb_bob', 'd': (0.1,) * 8}, SENSOR, 'needs 4 or 5 .* got 8'),
        ({'distortion_model': 'equidistant', 'd': ()}, SENSOR, 'needs 4 .* got 0'),
        ({'d': (np.inf, 0, 0, 0, 0)}, SENSOR, 'no numbers'),
        ({}, (640, 360), '640x480; the image has 640x360'),
        ({}, (1280, 720), '640x480; the image has 1280x720'),
        ({'binning_x': 2, 'binning_y': 2}, SENSOR, 'binning 2x2; the image has 640x480'),
        ({'roi': (0, 0, 320, 240)}, SENSOR, r'roi 320x240 at \(0, 0\); the image has 640x480'),
        ({'roi': (400, 0, 320, 240)}, (320, 240), 'outside of the sensor'),
    ],
)
def test_a_camera_info_of_something_else_is_refused_by_name(changes, size, words):
    info = camera_info(**changes)
    with pytest.raises(BadCameraInfo, match=words) as caught:
        Camera.from_info(info, size[1], size[0])
    assert caught.value.remedy


def test_a_camera_info_without_a_size_is_taken_and_told():
    info = camera_info(width=0, height=0)
    assert Camera.from_info(info, 480, 640).cx == K[2]
    assert '0x0' in size_note(info, 480, 640)[0]


@pytest.mark.parametrize(
    ('topic', 'rectified'),
    [
        ('/camera/image_raw', False),
        ('/camera/image_rect', True),
        ('/camera/image_rect_color/compressed', True),
        ('/left/rectified/image', True),
        ('/rect_cam/image_raw', False),
        ('/direct/image', False),
        ('/depth/image_rect_raw', True),
    ],
)
def test_rectified_topics_are_known_by_name(topic, rectified):
    assert is_rectified(topic) == rectified


@pytest.mark.parametrize('lens', ['straight', 'plumb_bob', 'rational', 'fisheye'])
@pytest.mark.parametrize(('binning', 'stride'), [((0, 0), 1), ((2, 2), 3), ((0, 0), 7)])
def test_points_lie_where_the_object_is(lens, binning, stride):
    """A tilted wall is seen through the lens; every point must lie on it again."""
    info = camera_info(lens, binning=binning)
    width, height = image_size((0, 0, 0, 0), binning, 1)
    camera = Camera.from_info(info, height, width)
    v, u = np.mgrid[0:height, 0:width]
    rays = camera.rays(u.ravel(), v.ravel())
    normal, away = np.array([0.3, -0.2, 1.0]), 6.0
    z = away / (np.concatenate([rays, np.ones((len(rays), 1))], -1) @ normal)
    z = z.reshape(height, width).astype(np.float32)
    heat = np.full((height, width), 255, np.uint8)
    cloud = depth.from_depth(z, camera, heat, None, depth.Choice(stride=stride))
    assert len(cloud) > 0.9 * len(range(0, width, stride)) * len(range(0, height, stride))
    xyz = np.stack([cloud['x'], cloud['y'], cloud['z']], -1)
    assert np.abs(xyz @ normal - away).max() < 1e-3
    x, y = bend(lens, xyz[:, 0] / xyz[:, 2], xyz[:, 1] / xyz[:, 2])
    factor = max(binning[0], 1)
    on_grid = np.stack([(K[0] * x + K[2]) / factor, (K[4] * y + K[5]) / factor], -1) / stride
    assert np.abs(on_grid - np.rint(on_grid)).max() < 0.15
