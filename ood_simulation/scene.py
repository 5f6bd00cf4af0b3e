# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Where things stand and how the camera moves: all of it a function of the seed and the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from ood_simulation.scene_style import SceneStyle
from ood_simulation.unknown import UNKNOWN

CHUNK = 20.0
"""Metres of road whose things are drawn by lot together."""
FAR = 140.0
"""Metres beyond which nothing is placed."""
LOOP = 220.0
"""Metres after which moving traffic comes round again."""


@dataclass(frozen=True)
class Thing:
    """
    Something that stands on the ground.

    Attributes:
        kind: entry of `KNOWN` or `UNKNOWN`.
        variant: which of that kind.
        s: metres along the road.
        d: metres to the right of the road's middle.
        heading: radians it is turned from looking along the road.
        instance: 0 for a known thing, else its id.
        size: scale factor.
        pace: metres per second of a walk along the road.

    """

    kind: str
    variant: int
    s: float
    d: float
    heading: float = 0.0
    instance: int = 0
    size: float = 1.0
    pace: float = 0.0


@dataclass(frozen=True)
class House:
    """A building: span along the road, side (-1 left, 1 right), face's position and variant."""

    start: float
    length: float
    side: int
    face: float
    variant: int


@dataclass(frozen=True)
class Pose:
    """The camera: metres along and across, path's curvature and slope, horizon's shift in rows."""

    s: float
    d: float
    curvature: float
    slope: float
    bounce: float
    speed: float
    exposure: float
    yaw: float


class Scene:
    """
    The world of one seed.

    Args:
        seed: of the drive.
        style: its style.
        unknowns: expected unknown objects per 20 m of road.

    """

    def __init__(self, seed: int, style: SceneStyle, unknowns: float) -> None:
        self.seed, self.style, self.unknowns = seed, style, unknowns
        rng = np.random.default_rng([seed, 1])
        self._waves = rng.uniform(0.3, 1.0, (8, 3)), rng.uniform(0, 2 * np.pi, (8, 3))
        self._bend = rng.uniform(0, 1) ** 2 * (0.0045 if style.place != 'highway' else 0.0015)
        self._fence = rng.random(2) < 0.35
        self.chunk = lru_cache(maxsize=64)(self._chunk)
        self.house = lru_cache(maxsize=64)(self._house)

    def _wave(self, which: int, x: float) -> float:
        """Smooth function of x in -1..1 with periods of one to three."""
        rate, phase = self._waves[0][which], self._waves[1][which]
        return float(np.sin(2 * np.pi * rate * x + phase).mean())

    def pose(self, t: float) -> Pose:
        """Camera at `t` seconds."""
        style = self.style
        s = style.speed * (t + 0.6 * self._wave(0, t / 6))
        speed = style.speed * max(
            0.2, 1 + (self._wave(0, (t + 0.05) / 6) - self._wave(0, t / 6)) * 12
        )
        return Pose(
            s=s,
            d=style.ego + 0.3 * self._wave(1, t / 5) + self._swerve(s),
            curvature=self._bend * self._wave(2, s / 160),
            slope=1.5e-4 * (1 + self._wave(3, s / 200)) - 5e-5,
            bounce=0.004 * self._wave(4, t / 0.9) + 0.002 * self._wave(5, t / 0.23),
            speed=speed,
            exposure=1 + 0.16 * self._wave(6, t / 4),
            yaw=0.012 * self._wave(7, t / 3),
        )

    def _swerve(self, s: float) -> float:
        """Metres to the right by which the driver goes round what lies in the way."""
        total = 0.0
        for number in range(int(s // CHUNK) - 2, int(s // CHUNK) + 3):
            for thing in self.chunk(number):
                away = thing.d - self.style.ego
                if thing.instance and abs(away) < 2.0:
                    side = -1.0 if away > 0 else 1.0
                    total += side * (2.2 - abs(away)) * float(np.exp(-(((thing.s - s) / 9) ** 2)))
        return float(np.clip(total, -2.6, 2.6))

    def things(self, pose: Pose, t: float) -> list[Thing]:
        """Things in front of the camera at `t` seconds, in no order."""
        first, last = int(pose.s // CHUNK) - 1, int((pose.s + FAR) // CHUNK)
        found = []
        for number in range(first, last + 1):
            for thing in self.chunk(number):
                s = thing.s + thing.pace * (t % 60)
                if 2.5 < s - pose.s < FAR:
                    found.append(thing if not thing.pace else _moved(thing, s))
        found.extend(x for x in self._traffic(pose, t) if 3.5 < x.s - pose.s < FAR)
        return found

    def houses(self, pose: Pose) -> Iterator[House]:
        """Buildings in view."""
        for side, line in ((-1, self.style.left[2]), (1, self.style.right[2])):
            length = 22.0
            first = int(pose.s // length) - 1
            for number in range(first, first + int(FAR // length) + 3):
                house = self.house(side, number, line, length)
                if house is not None:
                    yield house

    def _house(self, side: int, number: int, line: float, length: float) -> House | None:
        rng = np.random.default_rng([self.seed, 2, side + 1, abs(number), number < 0])
        if rng.random() > self.style.buildings:
            return None
        dense = self.style.place == 'urban' and rng.random() < 0.7
        gap = 0.0 if dense else rng.uniform(1, 8)
        return House(
            start=number * length + gap / 2,
            length=length - gap,
            side=side,
            face=line + side * rng.uniform(0, 1.2),
            variant=int(rng.integers(7)),
        )

    def fences(self) -> Iterator[tuple[int, float]]:
        """Side (-1, 1) and lateral position of fences along the road."""
        for side, band in ((-1, self.style.left), (1, self.style.right)):
            if self._fence[(side + 1) // 2]:
                yield side, band[1] + side * 0.4

    def _chunk(self, number: int) -> tuple[Thing, ...]:
        rng = np.random.default_rng([self.seed, 3, abs(number), number < 0])
        start, style = number * CHUNK, self.style
        things: list[Thing] = []

        def put(kind: str, variants: int, d: float, **more: float) -> None:
            s = start + rng.uniform(0, CHUNK)
            things.append(Thing(kind, int(rng.integers(variants)), s, d, **more))  # type: ignore[arg-type]

        for side, (kerb, walk, line) in ((-1, style.left), (1, style.right)):
            inner, room = abs(walk), abs(line) - abs(walk)
            for _ in range(rng.poisson(style.trees * 2)):
                reach = inner + rng.uniform(0.3, 1) * min(max(room, 0.8), 14)
                put(
                    'tree',
                    7,
                    side * (reach if rng.random() < 0.7 else abs(kerb) + 0.7),
                    size=rng.uniform(0.7, 1.3),
                )
            parkable = abs(kerb) - style.lanes * style.lane_width / 2
            # A narrow kerb leaves room on the pavement or in the yards only.
            at = abs(kerb) - 1.0 if parkable > 1.6 else max(inner, abs(kerb) + 1.2) + 1.0
            if style.place != 'highway':
                for _ in range(rng.poisson(style.parked * 2)):
                    along = 0.0 if style.rhs == (side > 0) else np.pi
                    put('car', 7, side * (at + rng.uniform(-0.1, 0.3)), heading=along)
            for _ in range(rng.poisson(style.people * 2)):
                pace = float(rng.choice([-1.2, 0.0, 1.2, 1.5]))
                put(
                    'person',
                    8,
                    side * rng.uniform(abs(kerb) + 0.3, max(inner, abs(kerb) + 1)),
                    heading=0.0 if pace > 0 else np.pi if pace else rng.uniform(-3, 3),
                    pace=pace,
                )
            if rng.random() < 0.5 and style.place != 'rural':
                put('lamp_post', 3, side * (abs(kerb) + 0.45))
            if rng.random() < 0.28:
                put('sign', 6, side * (abs(kerb) + 0.6))
            if rng.random() < style.people * 0.15:
                put(
                    'cyclist',
                    4,
                    side * (abs(kerb) - 0.7),
                    heading=0.0 if side > 0 else np.pi,
                    pace=3.0 * side,
                )
        if style.people and rng.random() < 0.08:
            put('person', 8, rng.uniform(-3, 3), heading=rng.uniform(-2, 2))
        for i in range(rng.poisson(self.unknowns)):
            self._unknown(rng, number, i, start, things)
        return tuple(things)

    def _unknown(
        self, rng: Generator, number: int, i: int, start: float, things: list[Thing]
    ) -> None:
        style = self.style
        where, width = rng.random(), style.lanes * style.lane_width / 2
        if where < 0.62:
            d = rng.uniform(-width, width)
        else:
            kerb, walk, _ = style.left if rng.random() < 0.5 else style.right
            d = np.sign(kerb) * rng.uniform(abs(kerb), abs(walk) + 1.5)
        identity = 1 + (abs(number) * 8 + i + 31 * self.seed) % 65000
        things.append(
            Thing(
                kind=str(rng.choice(list(UNKNOWN))),
                variant=(number % 100000) * 8 + i,
                s=start + rng.uniform(0, CHUNK),
                d=d,
                heading=rng.uniform(-np.pi, np.pi),
                instance=identity,
                size=float(np.exp(rng.uniform(-0.5, 0.75))),
                pace=float(rng.choice([0.0, 0.0, 0.0, 0.5, -0.8])),
            )
        )

    def _traffic(self, pose: Pose, t: float) -> Iterator[Thing]:
        style = self.style
        rng = np.random.default_rng([self.seed, 4])
        count = rng.poisson(style.traffic)
        for _ in range(count):
            lane = int(rng.integers(style.lanes))
            centre = (lane + 0.5 - style.lanes / 2) * style.lane_width
            onward = (centre > 0) == style.rhs or style.place == 'highway'
            offset, variant, jitter = (
                rng.uniform(0, LOOP),
                int(rng.integers(7)),
                rng.uniform(-0.3, 0.3),
            )
            if abs(centre - style.ego) < style.lane_width * 0.6:
                if not onward or style.lanes == 1:
                    continue
                ahead = 14 + (offset * 0.35) + 3 * self._wave(5, t / 9)
                yield Thing('car', variant, pose.s + ahead, centre + jitter)
                continue
            speed = style.speed * (1 + 0.25 * ((lane * 7) % 3 - 1)) * (1 if onward else -1)
            ahead = (offset + speed * t - pose.s) % LOOP - 20
            yield Thing('car', variant, pose.s + ahead, centre + jitter, 0.0 if onward else np.pi)


def _moved(thing: Thing, s: float) -> Thing:
    return Thing(
        thing.kind,
        thing.variant,
        s,
        thing.d,
        thing.heading,
        thing.instance,
        thing.size,
        thing.pace,
    )
