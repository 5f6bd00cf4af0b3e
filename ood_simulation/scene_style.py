# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What a seed decides about a whole drive: place, weather, camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from ood_simulation.shapes import Light

PLACES = ('urban', 'suburban', 'rural', 'highway', 'industrial')
WEATHERS = ('sun', 'haze', 'overcast', 'dusk', 'rain')


@dataclass(frozen=True)
class SceneStyle:
    """
    Constant properties of a drive; lengths in metres, angles in radians.

    Attributes:
        place: entry of `PLACES`.
        weather: entry of `WEATHERS`.
        light: lighting.
        zenith: (3,) RGB 0..1 of the sky's top.
        horizon: (3,) RGB 0..1 of the sky above the horizon.
        clouds: 0 clear .. 1 closed.
        visibility: distance at which haze has taken 63 % of the contrast.
        lanes: number of lanes.
        lane_width: width of a lane.
        left: lateral positions (kerb, pavement's outer edge, building line) left, negative.
        right: the same at the right, positive.
        ego: lateral position of the camera.
        rhs: traffic keeps right.
        buildings: 0..1 share of the roadside with buildings.
        trees: trees per 10 m of each side.
        parked: parked cars per 10 m of each side.
        traffic: moving cars within 200 m.
        people: people per 10 m of each side.
        speed: metres per second.
        camera_height: above the road.
        focal: focal length over image width.
        pitch: horizon's row over image height.
        blur: sigma of the lens in pixels.
        noise: sigma of the sensor in grey levels.
        vignette: loss of brightness in the corners, 0..1.
        jpeg: quality, 0 = not compressed.
        tint: (3,) white balance gains.
        contrast: of the camera's tone curve.

    """

    place: str
    weather: str
    light: Light
    zenith: np.ndarray
    horizon: np.ndarray
    clouds: float
    visibility: float
    lanes: int
    lane_width: float
    left: tuple[float, float, float]
    right: tuple[float, float, float]
    ego: float
    rhs: bool
    buildings: float
    trees: float
    parked: float
    traffic: float
    people: float
    speed: float
    camera_height: float
    focal: float
    pitch: float
    blur: float
    noise: float
    vignette: float
    jpeg: int
    tint: np.ndarray
    contrast: float


def draw_style(rng: Generator, place: str = '', weather: str = '') -> SceneStyle:
    """
    Draw the style of a drive.

    Args:
        rng: source of randomness.
        place: entry of `PLACES`, '' for a random one.
        weather: entry of `WEATHERS`, '' for a random one.

    Raises:
        ValueError: unknown place or weather.

    """
    drawn = (
        str(rng.choice(PLACES, p=[0.34, 0.26, 0.18, 0.1, 0.12])),
        str(rng.choice(WEATHERS, p=[0.36, 0.18, 0.26, 0.1, 0.1])),
    )
    place, weather = place or drawn[0], weather or drawn[1]
    if place not in PLACES:
        raise ValueError(f'place: expected one of {", ".join(PLACES)}, got {place!r}')
    if weather not in WEATHERS:
        raise ValueError(f'weather: expected one of {", ".join(WEATHERS)}, got {weather!r}')
    light, zenith, horizon, clouds = _light(rng, weather)
    u = rng.uniform
    lanes = {
        'urban': int(rng.integers(2, 4)),
        'suburban': 2,
        'rural': int(rng.integers(1, 3)),
        'highway': int(rng.integers(3, 5)),
        'industrial': 2,
    }[place]
    lane_width = u(2.9, 3.8)
    half = lanes * lane_width / 2
    rhs = bool(rng.random() < 0.7)

    def side() -> tuple[float, float, float]:
        bay = (
            (u(0.2, 0.6) if rng.random() < 0.5 else u(1.9, 2.5))
            if place in ('urban', 'suburban', 'industrial')
            else u(0.4, 1.6)
        )
        kerb = half + bay
        walk = {
            'urban': u(1.8, 4.5),
            'suburban': u(1.2, 2.4),
            'rural': 0.0,
            'highway': 0.0,
            'industrial': u(0.0, 2.5),
        }[place]
        line = (
            kerb
            + walk
            + {
                'urban': u(0.2, 1.5),
                'suburban': u(3, 9),
                'rural': u(10, 20),
                'highway': u(12, 22),
                'industrial': u(3, 12),
            }[place]
        )
        return kerb, kerb + walk, line

    left, right = side(), side()
    lane = int(rng.integers((lanes + 1) // 2, lanes)) if lanes > 1 else 0
    ego = -half + (lane + 0.5) * lane_width
    ego = ego if rhs or lanes == 1 else -ego
    return SceneStyle(
        place=place,
        weather=weather,
        light=light,
        zenith=zenith,
        horizon=horizon,
        clouds=clouds,
        visibility={'haze': u(90, 220), 'rain': u(120, 300)}.get(weather, u(300, 900)),
        lanes=lanes,
        lane_width=lane_width,
        left=(-left[0], -left[1], -left[2]),
        right=right,
        ego=ego + u(-0.4, 0.4),
        rhs=rhs,
        buildings={
            'urban': u(0.8, 1),
            'suburban': u(0.45, 0.8),
            'rural': u(0.0, 0.2),
            'highway': u(0, 0.25),
            'industrial': u(0.4, 0.8),
        }[place],
        trees={
            'urban': u(0.1, 0.7),
            'suburban': u(0.4, 1.3),
            'rural': u(0.5, 1.8),
            'highway': u(0.2, 1.2),
            'industrial': u(0, 0.5),
        }[place],
        parked={
            'urban': u(0.2, 1.0),
            'suburban': u(0, 0.7),
            'rural': u(0, 0.06),
            'highway': 0.0,
            'industrial': u(0, 0.6),
        }[place],
        traffic={
            'urban': u(2, 7),
            'suburban': u(1, 5),
            'rural': u(0, 3),
            'highway': u(4, 10),
            'industrial': u(0, 4),
        }[place],
        people={
            'urban': u(0.15, 0.9),
            'suburban': u(0.05, 0.4),
            'rural': u(0, 0.08),
            'highway': 0.0,
            'industrial': u(0, 0.3),
        }[place],
        speed={
            'urban': u(4, 11),
            'suburban': u(6, 13),
            'rural': u(9, 18),
            'highway': u(16, 26),
            'industrial': u(3, 9),
        }[place],
        camera_height=u(1.15, 1.9),
        focal=u(0.68, 1.15),
        pitch=u(0.36, 0.5),
        blur=u(0.25, 0.95),
        noise=u(0.8, 4.5) * (1.8 if weather == 'dusk' else 1.0),
        vignette=u(0.0, 0.4),
        jpeg=int(rng.choice([0, 0, 92, 80, 60])),
        tint=u(0.96, 1.04, 3).astype(np.float32),
        contrast=u(0.85, 1.25),
    )


def _light(rng: Generator, weather: str) -> tuple[Light, np.ndarray, np.ndarray, float]:
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.2)
    blue = np.array([0.3, 0.5, 0.85]) * rng.uniform(0.75, 1.1)
    pale = np.array([0.78, 0.86, 0.95]) * rng.uniform(0.9, 1.05)
    if weather == 'sun':
        warm = np.array([1.0, rng.uniform(0.85, 0.97), rng.uniform(0.65, 0.9)])
        sun, ambient, clouds = (
            warm * rng.uniform(0.75, 1.05),
            np.array([0.5, 0.56, 0.66]),
            rng.uniform(0, 0.6),
        )
        zenith, horizon = blue, pale
    elif weather == 'dusk':
        height = rng.uniform(0.08, 0.25)
        sun, ambient = (
            np.array([0.5, 0.28, 0.14]) * rng.uniform(0.4, 1),
            np.array([0.5, 0.5, 0.62]) * rng.uniform(0.75, 1.1),
        )
        zenith, horizon = (
            np.array([0.2, 0.24, 0.42]),
            np.array([0.85, 0.55, 0.36]) * rng.uniform(0.6, 1),
        )
        clouds = rng.uniform(0, 0.7)
    else:
        level = {'haze': 0.95, 'overcast': 0.8, 'rain': 0.72}[weather] * rng.uniform(0.9, 1.15)
        sun = np.full(3, 0.3 if weather == 'haze' else 0.12) * rng.uniform(0.5, 1.2)
        ambient = np.array([0.78, 0.8, 0.84]) * level
        zenith = np.array([0.68, 0.73, 0.8]) * level
        horizon = np.array([0.86, 0.88, 0.9]) * level
        clouds = {'haze': rng.uniform(0, 0.6), 'overcast': 0.9, 'rain': 1.0}[weather]
    direction = np.array(
        [np.cos(azimuth) * np.cos(height), np.sin(azimuth) * np.cos(height), np.sin(height)]
    )
    clip = [np.clip(v, 0, 1).astype(np.float32) for v in (zenith, horizon)]
    return Light(direction, sun, ambient, clip[1]), clip[0], clip[1], clouds
