# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The proving ground: exact labels, reproducible, varied, every parameter checked."""

from __future__ import annotations

import numpy as np
import pytest

from ood_simulation import CLASSES, ProvingGround
from ood_simulation.known import KNOWN
from ood_simulation.painter import Canvas
from ood_simulation.scene_style import PLACES, WEATHERS
from ood_simulation.shapes import Light, Part, render
from ood_simulation.textures import PATTERNS, SIZE, noise, pattern
from ood_simulation.unknown import UNKNOWN

LIGHT = Light(np.array([0.0, 0.0, 1.0]), np.ones(3) * 0.5, np.ones(3) * 0.5, np.ones(3) * 0.8)


def small(seed: int = 1000, **options) -> ProvingGround:
    return ProvingGround(seed, width=160, height=120, **options)


@pytest.fixture(scope='module')
def crowded() -> ProvingGround:
    return small(1001, unknowns=4.0)


def same(a, b) -> bool:
    fields = ('image', 'semantic', 'anomaly', 'instances')
    return a.stamp == b.stamp and all(np.array_equal(getattr(a, f), getattr(b, f)) for f in fields)


def test_types_and_ranges(crowded):
    frame = crowded.frame(15)
    assert frame.image.shape == (120, 160, 3)
    assert frame.image.dtype == frame.semantic.dtype == frame.anomaly.dtype == np.uint8
    assert frame.instances.dtype == np.uint16
    assert frame.semantic.shape == frame.anomaly.shape == frame.instances.shape == (120, 160)
    assert frame.stamp == 0.5
    assert set(np.unique(frame.anomaly)) <= {0, 1, 255}
    assert set(np.unique(frame.semantic)) <= {*range(len(CLASSES)), 255}


def test_depth_is_that_of_what_is_drawn(crowded):
    checked = 0
    for index in range(0, 120, 10):
        frame = crowded.frame(index)
        depth, sky = frame.depth, frame.semantic == CLASSES.index('Sky')
        assert depth.shape == (120, 160)
        assert depth.dtype == np.float32
        assert not np.isnan(depth).any()
        assert depth.min() > 0.3
        assert np.isinf(depth[sky]).mean() > 0.95
        for identity, metres in frame.distances.items():
            mine = frame.instances == identity
            np.testing.assert_allclose(depth[mine], metres, rtol=1e-5)
            checked += mine.any()
        # the road comes nearer from row to row
        road = np.where(frame.semantic == CLASSES.index('Road'), depth, np.nan)
        rows = np.nanmedian(road[np.isfinite(road).sum(1) > 20], axis=1)
        assert len(rows) > 20
        assert (np.diff(rows) < 0).all()
    assert checked > 10


def test_depth_over_a_wall_is_that_of_its_plane():
    canvas = Canvas(64, 48, np.zeros(3))
    focal, x = 40.0, 2.0  # a wall beside the camera, 4 to 10 m ahead, from 1 m below to 2 m above
    near, far = 4.0, 10.0

    def corner(z: float, y: float) -> tuple[float, float]:
        return 32 + focal * x / z, 24 + focal * y / z

    ends = [corner(near, -2), corner(far, -2), corner(far, 1), corner(near, 1)]
    texture = np.full((8, 8, 3), 9, np.uint8)
    canvas.quad(texture, np.array(ends), (near, far, far, near), 3)
    vv, uu = np.nonzero(canvas.semantic == 3)
    assert len(uu) > 100
    np.testing.assert_allclose(canvas.depth[vv, uu], focal * x / (uu - 32), rtol=0.06)


def test_same_seed_same_frame_in_any_order(crowded):
    forwards = [crowded.frame(i) for i in (0, 10, 20)]
    other = small(1001, unknowns=4.0)
    backwards = [other.frame(i) for i in (20, 10, 0)][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))


def test_seeds_differ(crowded):
    first, second = crowded.frame(0), small(1002, unknowns=4.0).frame(0)
    assert np.abs(first.image.astype(int) - second.image).mean() > 8


def test_drive_is_its_frames(crowded):
    frames = list(crowded.drive(0.1, start=1.0))
    assert [f.stamp for f in frames] == pytest.approx([1.0, 31 / 30, 32 / 30])
    assert same(frames[1], crowded.frame(31))
    assert same(next(iter(crowded)), crowded.frame(0))
    assert list(crowded.drive(0.0)) == []


def test_unknown_labels_agree_with_each_other(crowded):
    found = 0
    for index in range(0, 150, 15):
        frame = crowded.frame(index)
        unknown = frame.anomaly == 1
        found += int(unknown.any())
        assert (frame.instances[unknown] > 0).all()
        assert (frame.instances[frame.anomaly == 0] == 0).all()
        assert (frame.semantic[unknown] == 255).all()
        for identity, count in zip(
            *np.unique(frame.instances[frame.instances > 0], return_counts=True), strict=True
        ):
            assert count >= 12, f'{identity} is a speck of {count} pixels'
    assert found >= 8


def test_labels_lie_where_the_things_were_drawn():
    """The same world without its unknown things, which has none, differs where the labels say."""
    place, weather = 'highway', 'overcast'
    full = small(1007, unknowns=3.0, place=place, weather=weather)
    empty = small(1007, unknowns=0.0, place=place, weather=weather)
    for ground in (full, empty):  # a camera without noise, and one path for both
        ground.optics = lambda image, index, pose: image
    full.scene._swerve = empty.scene._swerve = lambda s: 0.0
    inside, total, outside_above = 0, 0, 0
    for index in (0, 30, 60, 90):
        a, b = full.frame(index), empty.frame(index)
        changed = np.abs(a.image.astype(int) - b.image).max(2) > 6
        unknown = a.anomaly == 1
        inside, total = inside + int((changed & unknown).sum()), total + int(unknown.sum())
        # Below lie shadows; above an unknown thing nothing may change.
        covered = np.maximum.accumulate(a.anomaly > 0, axis=0)
        outside_above += int((changed & ~covered & (np.arange(120) < 50)[:, None]).sum())
        assert (b.anomaly == 0).all()
    assert total > 100
    assert inside / total > 0.9
    assert outside_above < 0.02 * total + 20


def test_density_low_and_high(crowded):
    few = small(1001, unknowns=0.5)
    shares = [
        np.mean([ground.frame(i).instances > 0 for i in range(0, 90, 15)])
        for ground in (few, crowded)
    ]
    assert shares[1] > shares[0]


def test_things_come_nearer(crowded):
    """Ids persist, and an object that stays in view grows."""
    areas: dict[int, list[int]] = {}
    for index in range(0, 90, 6):
        frame = crowded.frame(index)
        ids, counts = np.unique(frame.instances, return_counts=True)
        for identity, count in zip(ids.tolist(), counts.tolist(), strict=True):
            if identity:
                areas.setdefault(identity, []).append(count)
    tracks = [a for a in areas.values() if len(a) >= 4]
    assert tracks
    assert np.mean([a[2] >= a[0] for a in tracks]) > 0.7


@pytest.mark.parametrize(('place', 'weather'), zip(PLACES, WEATHERS, strict=True))
def test_every_place_has_a_road_under_a_sky_and_every_weather_is_well_exposed(place, weather):
    frame = small(8, place=place, weather=weather).frame(3)
    assert (frame.semantic[-12:, 60:100] == CLASSES.index('Road')).mean() > 0.6
    assert (frame.semantic[0] == CLASSES.index('Sky')).any()
    assert len(np.unique(frame.semantic)) >= 4
    assert 35 < frame.image.mean() < 220
    assert frame.image.std() > 12


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'seed': -1}, 'got -1'),
        ({'width': 8}, 'got 8x480'),
        ({'rate': 0.0}, r'got 0\.0'),
        ({'rate': float('nan')}, 'got nan'),
        ({'unknowns': -0.1}, r'got -0\.1'),
        ({'unknowns': float('nan')}, 'got nan'),
        ({'place': 'moon'}, "got 'moon'"),
        ({'weather': 'lava'}, "got 'lava'"),
    ],
)
def test_errors_name_the_value(options, words, crowded):
    with pytest.raises(ValueError, match=words):
        ProvingGround(**options)
    with pytest.raises(ValueError, match='got -2'):
        crowded.frame(-2)


@pytest.mark.parametrize('kind', [*KNOWN, *UNKNOWN])
def test_every_kind_renders_upright_and_varies(kind):
    sprites = []
    for i in range(2):
        rng = np.random.default_rng(i)
        make = KNOWN[kind][0] if kind in KNOWN else UNKNOWN[kind][0]
        sprites.append(render(make(rng), LIGHT, 0.4, 40, rng=rng))
    for sprite in sprites:
        colour, clear = sprite.levels[0]
        assert colour.shape[:2] == clear.shape
        assert 0.05 < sprite.height < 14
        assert (clear < 128).any()
        assert (clear > 128).any()
        assert (colour[clear == 255] == 0).all(), 'colour is premultiplied'
    assert (
        sprites[0].levels[0][0].shape != sprites[1].levels[0][0].shape
        or (sprites[0].levels[0][0] != sprites[1].levels[0][0]).any()
    )


@pytest.mark.parametrize(
    ('kind', 'area'),
    [('ellipsoid', np.pi), ('box', 4.0), ('cylinder', 4.0)],
)
def test_silhouettes_have_the_area_of_their_solid(kind, area):
    sprite = render([Part(kind, (0, 0, 1.0), (1, 1, 1), np.ones(3) * 0.5)], LIGHT, pixels=120)
    clear = sprite.levels[0][1]
    got = float((255.0 - clear).sum() / 255 / sprite.scale**2)
    # Looked down upon by 0.07 rad the top face shows too: 2 * 2 * sin(0.07) at most.
    assert area * 0.98 < got < area + 0.3
    assert sprite.height == pytest.approx(2.0, abs=0.2)


def test_nearer_part_hides_the_farther():
    red, blue = np.array([0.9, 0, 0], np.float32), np.array([0, 0, 0.9], np.float32)
    front = Part('box', (0, -2, 1), (1, 0.1, 1), red)
    behind = Part('box', (0, 2, 1), (1, 0.1, 1), blue)
    for parts in ([front, behind], [behind, front]):
        colour, _clear = render(parts, LIGHT, pixels=40).levels[0]
        middle = colour[colour.shape[0] // 2, colour.shape[1] // 2]
        assert middle[0] > middle[2]
    with pytest.raises(ValueError, match='got none'):
        render([], LIGHT)


@pytest.mark.parametrize('kind', PATTERNS)
def test_patterns(kind):
    image = pattern(np.random.default_rng(1), kind)
    assert image.shape == (SIZE, SIZE, 3)
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 1


def test_noise_tiles():
    field = noise(np.random.default_rng(0), 64, 64, 4, 2)
    assert (field.min(), field.max()) == (0.0, pytest.approx(1.0))
    steps = np.abs(np.diff(field, axis=1)).max()
    assert np.abs(field[:, 0] - field[:, -1]).max() <= steps * 1.5
