# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
A rendered drive with unknown objects and exact labels.

    for frame in ProvingGround(seed=7).drive(10.0):
        frame.image, frame.semantic, frame.anomaly, frame.instances, frame.stamp

Everything is a function of the seed and the frame's number: any frame can be asked for at any
time, in any order, and is the same again on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from ood_simulation import backdrop, shapes
from ood_simulation.known import KNOWN
from ood_simulation.optics import Optics
from ood_simulation.painter import Canvas
from ood_simulation.roadside import Roadside
from ood_simulation.scene import House, Scene, Thing
from ood_simulation.scene_style import draw_style
from ood_simulation.unknown import UNKNOWN
from ood_simulation.view import View

CLASSES = (
    'Sky', 'Building', 'Pole', 'Road', 'Pavement', 'Tree', 'SignSymbol', 'Fence', 'Car',
    'Pedestrian', 'Bicyclist',
)  # fmt: skip
"""Names of the class ids in `SimulatedFrame.semantic`."""

SMALLEST = 12
"""Visible pixels below which an unknown thing is to be ignored."""
STRIDES = (-0.9, 0.0, 0.9, 0.0)
"""Phases of a walk."""
SMALL = 56
"""Pixels of the longer side of far sprites."""


@dataclass(slots=True)
class SimulatedFrame:
    """
    One frame and its labels.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        semantic: uint8 (H, W), index into `CLASSES`, 255 = none of them (unknown things too).
        anomaly: uint8 (H, W), 0 known, 1 unknown, 255 ignore (soft edges, specks).
        instances: uint16 (H, W), id of the unknown thing, 0 = none; the same thing keeps its id.
        stamp: seconds since the drive's beginning.
        distances: of the unknown things ahead, by id, in metres along the camera's axis.
        depth: float32 (H, W), metres along the camera's axis, infinity where the sky is; None
            where nobody knows it.

    """

    image: np.ndarray
    semantic: np.ndarray
    anomaly: np.ndarray
    instances: np.ndarray
    stamp: float
    distances: dict[int, float] = field(default_factory=dict)
    depth: np.ndarray | None = None


class ProvingGround:
    """
    A drive of one seed.

    Args:
        seed: decides place, weather, camera and everything that stands there.
        width: of the frames in pixels.
        height: of the frames in pixels.
        rate: frames per second.
        unknowns: expected unknown objects per 20 m of road; 0 = none at all.
        place: 'urban', 'suburban', 'rural', 'highway', 'industrial' or '' for the seed's own.
        weather: 'sun', 'haze', 'overcast', 'dusk', 'rain' or '' for the seed's own.

    Raises:
        ValueError: size, rate, seed or density out of range, unknown place or weather.

    """

    def __init__(
        self,
        seed: int = 0,
        width: int = 640,
        height: int = 480,
        rate: float = 30.0,
        unknowns: float | None = None,
        place: str = '',
        weather: str = '',
    ) -> None:
        if width < 32 or height < 32:
            raise ValueError(f'size: expected at least 32x32 pixels, got {width}x{height}')
        if not rate > 0:
            raise ValueError(f'rate: expected more than 0 frames per second, got {rate}')
        if seed < 0:
            raise ValueError(f'seed: expected 0 or more, got {seed}')
        if unknowns is not None and not 0 <= unknowns <= 20:
            raise ValueError(f'unknowns: expected 0..20 per 20 m, got {unknowns}')
        self.seed, self.width, self.height, self.rate = seed, width, height, rate
        self.style = draw_style(np.random.default_rng([seed, 0]), place, weather)
        density = np.random.default_rng([seed, 5]).uniform(0.25, 0.9)
        self.scene = Scene(seed, self.style, density if unknowns is None else unknowns)
        self.focal = self.style.focal * width
        rng = np.random.default_rng([seed, 6])
        self.sky_height = int(height * 0.62)
        self.sky, self.sky_labels = backdrop.panorama(
            rng, self.style, int(width * 1.6), self.sky_height
        )
        self.surface = backdrop.Surface(rng, self.style)
        self.optics = Optics(seed, width, height, self.style)
        self.haze = backdrop.to_bytes(self.style.horizon).astype(np.float64)
        barrier = backdrop.barrier(rng, self.style)
        self.roadside = Roadside(self.scene, self.haze, barrier)
        self._sprites: dict[tuple, shapes.Sprite] = {}
        yy, xx = np.mgrid[-1:1:48j, -1:1:48j]
        self._disc = (255 * np.clip(np.hypot(xx, yy) * 1.3 - 0.3, 0, 1)).astype(np.uint8)
        self._columns = (np.arange(width, dtype=np.float32) - width / 2)[None]

    def __iter__(self) -> Iterator[SimulatedFrame]:
        """Drive on without end."""
        index = 0
        while True:
            yield self.frame(index)
            index += 1

    def drive(self, seconds: float, start: float = 0.0) -> Iterator[SimulatedFrame]:
        """Frames of `seconds` of driving, from `start` seconds after the beginning."""
        first = round(start * self.rate)
        for index in range(first, first + max(0, round(seconds * self.rate))):
            yield self.frame(index)

    def frame(self, index: int) -> SimulatedFrame:
        """Render frame number `index` (0 or more). Raises ValueError for a negative one."""
        if index < 0:
            raise ValueError(f'index: expected 0 or more, got {index}')
        t = index / self.rate
        pose = self.scene.pose(t)
        canvas = Canvas(self.width, self.height, self.haze / 255)
        horizon = (self.style.pitch + pose.bounce) * self.height
        view = View(pose, self.focal, self.style.camera_height, self.width / 2, horizon)
        self._draw_sky(canvas, view)
        self._draw_ground(canvas, view)
        things = self.scene.things(pose, t)
        drawn = [(thing, self._sprite(thing, view, t)) for thing in things]
        self._draw_shadows(canvas, view, drawn)
        items: list[tuple[float, object]] = [(thing.s, (thing, sprite)) for thing, sprite in drawn]
        items += [(house.start + house.length, house) for house in self.scene.houses(pose)]
        items += self.roadside.fences(view)
        items.sort(key=lambda item: -item[0])
        for _, item in items:
            if isinstance(item, House):
                self.roadside.draw_house(canvas, view, item)
            elif isinstance(item, np.ndarray):
                self.roadside.draw_fence(canvas, view, item)
            else:
                self._draw_thing(canvas, view, *item)  # type: ignore[misc]
        image = self.optics(canvas.image, index, pose)
        anomaly = (canvas.instances > 0).astype(np.uint8)
        if canvas.marked:
            for identity, (a, b, c, d) in canvas.boxes.items():
                region = canvas.instances[b:d, a:c]
                mine = region == identity
                if np.count_nonzero(mine) < SMALLEST:
                    anomaly[b:d, a:c][mine] = 255
                    region[mine] = 0
            anomaly[canvas.rim > 0] = 255
        distances = {
            thing.instance: float(view.place(thing.s, thing.d)[1])
            for thing in things
            if thing.instance
        }
        maps = canvas.semantic, anomaly, canvas.instances
        return SimulatedFrame(image, *maps, t, distances, canvas.depth)

    def _draw_sky(self, canvas: Canvas, view: View) -> None:
        rows = round(view.horizon) + 2
        span = self.sky.shape[1] - self.width
        shift = view.pose.yaw + view.pose.curvature * 40 + 0.05 * np.sin(view.pose.s / 400)
        x = int(np.clip(span / 2 + shift * self.focal, 0, span))
        take = min(rows, self.sky_height)
        canvas.image[:rows] = self.haze.astype(np.uint8)
        canvas.image[rows - take : rows] = self.sky[-take:, x : x + self.width]
        canvas.semantic[rows - take : rows] = self.sky_labels[-take:, x : x + self.width]
        if rows > take:
            canvas.image[: rows - take] = self.sky[:1, x : x + self.width]
            canvas.semantic[: rows - take] = 0

    def _draw_ground(self, canvas: Canvas, view: View) -> None:
        grid = np.geomspace(400, 1.0, 600)
        rows = np.arange(int(np.ceil(view.row(400.0))), self.height)
        z = np.interp(rows, view.row(grid), grid).astype(np.float32)
        x = (
            self._columns * (z / self.focal)[:, None]
            + (view.pose.d - view.bend(z)).astype(np.float32)[:, None]
        )
        s = (view.pose.s + z) % backdrop.PERIOD
        fog = 1 - np.exp(-z / self.style.visibility)
        edges = [0.0, 9.0, 18.0, 42.0, 1e9]
        for level in range(4):
            band = np.flatnonzero((z >= edges[level]) & (z < edges[level + 1]))
            if not len(band):
                continue
            step_s, step_x = self.surface.steps[level]
            columns = (x[band] + backdrop.REACH) / step_x - 0.5
            along = np.repeat((s[band] / step_s - 0.5)[:, None], self.width, 1).astype(np.float32)
            texture = self.surface.levels[level]
            np.clip(columns, 0, texture.shape[1] - 1.01, out=columns)
            cv2.remap(
                texture,
                columns,
                along,
                cv2.INTER_LINEAR,
                dst=canvas.image[rows[band[0]] : rows[band[-1]] + 1],
                borderMode=cv2.BORDER_WRAP,
            )
            if level:
                columns = (x[band] + backdrop.REACH) / backdrop.STEP_X - 0.5
                np.clip(columns, 0, self.surface.labels.shape[1] - 1.01, out=columns)
                along = along * np.float32(step_s / backdrop.STEP_S)
            cv2.remap(
                self.surface.labels,
                columns,
                along,
                cv2.INTER_NEAREST,
                dst=canvas.semantic[rows[band[0]] : rows[band[-1]] + 1],
                borderMode=cv2.BORDER_WRAP,
            )
        canvas.depth[rows] = z[:, None]
        veiled = rows[fog > 0.02]
        if len(veiled):
            a, b = veiled[0], veiled[-1] + 1
            f = fog[: b - a, None, None].astype(np.float32)
            canvas.image[a:b] = (
                canvas.image[a:b] * (1 - f) + self.haze.astype(np.float32) * f
            ).astype(np.uint8)

    def _sprite(self, thing: Thing, view: View, t: float) -> shapes.Sprite:
        relative = thing.heading + np.arctan2(*(view.place(thing.s, thing.d)[:2]))
        known = thing.kind in KNOWN
        bins = {'car': 24, 'person': 6, 'cyclist': 8, 'tree': 1, 'lamp_post': 1, 'sign': 1}
        if known:
            n = bins[thing.kind]
            turn = int(np.round(relative / (2 * np.pi) * n)) % n if n > 1 else 0
            yaw = turn * 2 * np.pi / n
        else:
            turn, yaw = 0, thing.heading
        walks = bool(thing.pace) and thing.kind == 'person'
        stride = STRIDES[int(t * 5 + thing.variant) % 4 if walks else 0]
        # Most things never come near, so they are rendered small until they do.
        near = self.focal / max(thing.s - view.pose.s, 1.0) * thing.size * 2.0 > SMALL * 1.15
        small = not near and thing.kind not in ('tree', 'lamp_post', 'sign', 'rock', 'bag')
        key = (thing.kind, thing.variant, turn, stride, small)
        if key not in self._sprites:
            if len(self._sprites) > 400:
                for old in list(self._sprites)[:100]:
                    del self._sprites[old]
            kinds = list(KNOWN) + list(UNKNOWN)
            rng = np.random.default_rng(
                [self.seed, 7, kinds.index(thing.kind), thing.variant % 2**31]
            )
            if known:
                make, label = KNOWN[thing.kind]
                parts = make(rng, stride) if thing.kind == 'person' else make(rng)
                rough = 0.3 if thing.kind == 'tree' else 0.0
            else:
                make_unknown, rough = UNKNOWN[thing.kind]
                parts, label = make_unknown(rng), 255
            pixels = {'lamp_post': 300, 'tree': 200, 'car': 150, 'sign': 160}.get(thing.kind, 130)
            pixels = SMALL if small else pixels
            self._sprites[key] = shapes.render(
                parts, self.style.light, yaw, pixels, label, rough, rng, thing.kind == 'tree'
            )
        return self._sprites[key]

    def _draw_shadows(
        self, canvas: Canvas, view: View, drawn: list[tuple[Thing, shapes.Sprite]]
    ) -> None:
        light = self.style.light
        direct = float(light.sun.mean() * max(light.direction[2], 0.1))
        strength = 0.85 * direct / (direct + float(light.ambient.mean()))
        kx = float(np.clip(-light.direction[0] / max(light.direction[2], 0.25), -2, 2))
        kz = float(np.clip(-light.direction[1] / max(light.direction[2], 0.25), -1.5, 1.5))
        kz = kz if abs(kz) > 0.2 else 0.2
        for thing, sprite in drawn:
            _, z, u, v = view.place(thing.s, thing.d)
            scale = self.focal / z * thing.size
            flat = self.style.camera_height / z
            if z < 45 and strength > 0.12 and sprite.height * scale > 5:
                canvas.shadow(
                    sprite, u, v, scale, (kx, float(np.clip(flat * kz, -0.6, 0.9))), strength
                )
            if thing.kind not in ('lamp_post', 'sign', 'tree'):
                width = sprite.width * scale * 1.25
                if width > 3:
                    canvas.blot(
                        self._disc, u, v, width, max(width * min(flat, 0.4) * 1.1, 2.0), 0.6
                    )

    def _draw_thing(self, canvas: Canvas, view: View, thing: Thing, sprite: shapes.Sprite) -> None:
        _, z, u, v = view.place(thing.s, thing.d)
        fog = 1 - float(np.exp(-z / self.style.visibility))
        canvas.sprite(sprite, u, v, z, self.focal / z * thing.size, fog, thing.instance)


__all__ = ['CLASSES', 'ProvingGround', 'SimulatedFrame']
