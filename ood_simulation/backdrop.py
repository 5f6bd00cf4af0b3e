# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What lies far away or flat: sky and skyline, the road's surface, the faces of buildings."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from ood_simulation.scene_style import SceneStyle
from ood_simulation.textures import colour, mix, noise, pattern
from ood_simulation.vocabulary import (
    BUILDING,
    FENCE,
    NONE,
    PAVEMENT,
    ROAD,
    SKY,
    TREE,
    grey,
)

PERIOD = 80.0
"""Metres after which the road's surface repeats."""
REACH = 40.0
"""Metres to both sides that the surface covers."""
STEP_X, STEP_S = 0.05, 0.0625
"""Metres per texel across and along."""


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Float RGB 0..1 linear-ish to uint8 with the tone curve that sprites use."""
    return (np.clip(image, 0, 1) ** 0.8 * 255).astype(np.uint8)


def panorama(
    rng: Generator, style: SceneStyle, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """
    Sky above a skyline; the last row is the horizon.

    Returns:
        uint8 (height, width, 3) RGB and uint8 (height, width) class ids.

    """
    ramp = np.linspace(1, 0, height, dtype=np.float32)[:, None] ** rng.uniform(0.5, 1.0)
    sky = mix(np.repeat(ramp, width, 1), style.horizon, style.zenith)
    if style.clouds > 0.05:
        # Clouds lie flat: lengthen them sideways, the more so the nearer to the horizon.
        wide = noise(rng, 2 * height, width // 2, 3, 6)
        rows = (2 * height - 1) * (np.linspace(0, 1, height, dtype=np.float32) ** 1.7)
        columns = np.linspace(0, width // 2 - 1, width, dtype=np.float32)
        field = cv2.remap(
            wide,
            *(np.ascontiguousarray(v, np.float32) for v in np.meshgrid(columns, rows)),
            cv2.INTER_LINEAR,
        )
        cover = np.clip((field - (0.75 - 0.5 * style.clouds)) * rng.uniform(2, 6), 0, 1)
        bright = np.clip(style.horizon * 1.1 + 0.05, 0, 1) * (
            0.75 + 0.25 * noise(rng, height, width, 4, 4)[..., None]
        )
        sky = sky * (1 - cover[..., None] * 0.85) + bright * cover[..., None] * 0.85
    labels = np.full((height, width), SKY, np.uint8)
    columns = np.arange(width)  # type: ignore[assignment]
    for layer in range(3):
        town = style.place in ('urban', 'industrial', 'suburban') and layer != 1
        scale = height * (0.14, 0.1, 0.06)[layer] * rng.uniform(0.5, 1.3)
        far = (0.75, 0.5, 0.3)[layer]
        line = noise(rng, 4, width, 2 if not town else 4, 3)[1]
        if town:
            edges = np.cumsum(rng.integers(8, 50, 200))
            line = rng.random(201)[np.searchsorted(edges, columns)] * 0.8
        else:
            line = line + 0.12 * noise(rng, 4, width, 24, 2)[2]
        top = (height - 1 - line * scale).astype(np.int64)
        inside = np.arange(height)[:, None] >= top[None]
        tone = (
            colour(rng, 0.2, (0.3, 0.7))
            if town
            else np.array([0.2, 0.3, 0.14], np.float32) * rng.uniform(0.6, 1.2)
        )
        shade = (
            tone
            * (style.light.ambient + 0.4 * style.light.sun)
            * (0.8 + 0.4 * noise(rng, height, width, 10, 3)[..., None])
        )
        body = shade * (1 - far) + style.horizon * far
        sky = np.where(inside[..., None], body, sky)
        labels[inside] = BUILDING if town else TREE
    return to_bytes(sky), labels


class Surface:
    """
    The road and its sides as one periodic texture with coarser copies for far rows.

    Attributes:
        levels: uint8 (rows, columns, 3), finest first.
        steps: metres per texel (along, across) of each level.
        labels: uint8 (rows, columns) class ids at the finest level.

    """

    def __init__(self, rng: Generator, style: SceneStyle) -> None:
        rows, columns = int(PERIOD / STEP_S), int(2 * REACH / STEP_X)
        x = (np.arange(columns) + 0.5) * STEP_X - REACH
        tone, labels = self._bands(rng, style, rows, columns, x)
        self._markings(rng, style, tone, x, labels)
        grain = rng.normal(0, 0.035, (rows, columns, 1)).astype(np.float32)
        lit = (
            tone
            * (1 + grain)
            * (style.light.ambient + style.light.sun * max(style.light.direction[2], 0.2))
        )
        self.labels = labels
        self.levels = [to_bytes(lit)]
        self.steps = [(STEP_S, STEP_X)]
        for along, across in ((4, 1), (4, 2), (4, 2)):
            last, (s, d) = self.levels[-1], self.steps[-1]
            size = (last.shape[1] // across, last.shape[0] // along)
            self.levels.append(cv2.resize(last, size, interpolation=cv2.INTER_AREA))
            self.steps.append((s * along, d * across))

    def _bands(
        self, rng: Generator, style: SceneStyle, rows: int, columns: int, x: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        field = noise(rng, rows, columns, 12, 4)
        fine = noise(rng, rows, columns, 60, 2)
        base = (
            np.array([0.26, 0.26, 0.27], np.float32)
            * rng.uniform(0.55, 1.5)
            * rng.uniform(0.95, 1.05, 3)
        )
        tone = (base * (0.8 + 0.25 * field + 0.15 * fine)[..., None]).astype(np.float32)
        labels = np.full((rows, columns), ROAD, np.uint8)
        tracks = sum(
            np.exp(-(((x - c) / 0.35) ** 2))
            for lane in range(style.lanes)
            for c in (
                -style.lanes * style.lane_width / 2
                + (lane + 0.5) * style.lane_width
                + np.array([-0.8, 0.8])
            )
        )
        tone *= (1 - 0.12 * np.asarray(tracks, np.float32))[None, :, None]
        for _ in range(int(rng.integers(2, 14))):  # repairs
            a, b = int(rng.integers(rows)), int((rng.uniform(-8, 8) + REACH) / STEP_X)
            h, w = int(rng.uniform(0.6, 9) / STEP_S), int(rng.uniform(0.5, 2.5) / STEP_X)
            tone[a : a + h, b : b + w] *= rng.uniform(0.65, 1.25)
        for _ in range(int(rng.integers(0, 20))):  # cracks
            start = np.array([REACH / STEP_X + rng.uniform(-120, 120), rng.uniform(0, rows)])
            points = np.cumsum(rng.normal(0, 6, (12, 2)), 0) + start
            cv2.polylines(tone, [points.astype(np.int32)], False, (base * 0.45).tolist(), 1)
        for _ in range(int(rng.integers(1, 7))):  # manholes and stains
            centre = (int((rng.uniform(-6, 6) + REACH) / STEP_X), int(rng.integers(rows)))
            axes = (int(rng.uniform(0.2, 0.45) / STEP_X), int(rng.uniform(0.2, 0.45) / STEP_S))
            cv2.ellipse(tone, centre, axes, 0, 0, 360, (base * rng.uniform(0.5, 1.3)).tolist(), -1)
        grass = np.array([0.22, 0.33, 0.1], np.float32) * rng.uniform(0.55, 1.35, 3).astype(
            np.float32
        )
        if rng.random() < 0.2:
            grass = np.array([0.5, 0.42, 0.25], np.float32) * rng.uniform(0.7, 1.2)
        blades = (0.6 + 0.5 * field + 0.4 * rng.random((rows, columns), np.float32) * fine)[
            ..., None
        ]
        slabs = pattern(
            rng,
            str(rng.choice(['bricks', 'plain', 'checks', 'grain'])),
            grey(rng.uniform(0.35, 0.65)) * rng.uniform(0.92, 1.08, 3),
            grey(0.5),
        )
        slabs = slabs * 0.5 + slabs.mean((0, 1)) * 0.5
        paved = style.place in ('urban', 'industrial') and rng.random() < 0.8
        for kerb, walk, line in (style.left, style.right):
            side = np.sign(kerb)
            outer = np.flatnonzero(side * x > abs(walk))
            tone[:, outer] = (grass * blades[:, outer]).astype(np.float32)
            labels[:, outer] = TREE
            if paved:
                yard = np.flatnonzero((side * x > abs(walk)) & (side * x < abs(line) + 1))
                tone[:, yard] = base * 1.25 * (0.8 + 0.3 * fine[:, yard, None])
                labels[:, yard] = PAVEMENT
            path = np.flatnonzero((side * x > abs(kerb)) & (side * x <= abs(walk)))
            if len(path):
                tile = np.tile(slabs, (rows // 96 + 1, columns // 96 + 1, 1))[:rows]
                tone[:, path] = tile[:, path] * (0.75 + 0.35 * field[:, path, None])
                labels[:, path] = PAVEMENT
                edge = np.flatnonzero(np.abs(side * x - abs(kerb) - 0.08) < 0.09)
                tone[:, edge] = 0.55 * (0.85 + 0.2 * fine[:, edge, None])
                gutter = np.flatnonzero(np.abs(side * x - abs(kerb) + 0.1) < 0.08)
                tone[:, gutter] *= 0.6
        return tone, labels

    def _markings(
        self,
        rng: Generator,
        style: SceneStyle,
        tone: np.ndarray,
        x: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        rows = tone.shape[0]
        white = np.array([0.85, 0.85, 0.82], np.float32) * rng.uniform(0.75, 1.05)
        centre_tone = np.array([0.85, 0.65, 0.15], np.float32) if rng.random() < 0.3 else white
        wear = np.clip(noise(rng, rows, tone.shape[1] // 8, 30, 3) * rng.uniform(1.2, 3), 0, 1)
        wear = cv2.resize(wear, (tone.shape[1], rows))
        half, w = style.lanes * style.lane_width / 2, rng.uniform(0.05, 0.09)
        s = np.arange(rows) * STEP_S
        dash = float(rng.choice([8.0, 10.0, 16.0]))
        dashed = (s % dash) < dash * rng.uniform(0.3, 0.6)

        def line(at: float, on: np.ndarray, paint: np.ndarray) -> None:
            columns = np.flatnonzero(np.abs(x - at) < w)
            strength = (on[:, None] * wear[:, columns])[..., None] * 0.9
            tone[:, columns] = tone[:, columns] * (1 - strength) + paint * strength

        solid = np.ones(rows, bool)
        if style.place != 'industrial' or rng.random() < 0.5:
            for lane in range(1, style.lanes):
                middle = lane * 2 == style.lanes and style.place != 'highway'
                at = -half + lane * style.lane_width
                if middle and rng.random() < 0.3:
                    line(at - 0.15, solid, centre_tone)
                    line(at + 0.15, solid, centre_tone)
                else:
                    line(at, dashed, centre_tone if middle else white)
        if rng.random() < 0.65:
            line(-half, solid, white)
            line(half, solid, white)
        if style.place == 'urban' and rng.random() < 0.6:  # a zebra crossing
            a = int(rng.uniform(5, 60) / STEP_S)
            bars = ((x + half) % 1.0 < 0.5) & (np.abs(x) < half)
            columns = np.flatnonzero(bars)
            strength = wear[a : a + 56, columns, None] * 0.9
            tone[a : a + 56, columns] = (
                tone[a : a + 56, columns] * (1 - strength) + white * strength
            )
        if style.place in ('urban', 'industrial') and rng.random() < 0.4:  # a side street
            a, h = int(rng.uniform(10, 55) / STEP_S), int(rng.uniform(5, 8) / STEP_S)
            side = np.flatnonzero(np.abs(x) > half)
            tone[a : a + h, side] = tone[a - 20, len(x) // 2 - 30] * (
                0.9 + 0.1 * wear[a : a + h, side, None]
            )
            labels[a : a + h, side] = ROAD


def facade(rng: Generator, style: SceneStyle, facing: float) -> np.ndarray:
    """
    Front of a building, float-shaded to uint8 (256, 256, 3): 12 m wide, 4 storeys of 3 m high.

    Args:
        rng: source of randomness.
        style: of the drive.
        facing: cosine between the wall's normal and the sun, 0..1.

    """
    size = 256
    kind = str(rng.choice(['bricks', 'plain', 'grain', 'plain']))
    wall = (
        colour(rng, 0.55, (0.3, 0.9))
        if kind != 'bricks'
        else np.array([0.5, 0.28, 0.2], np.float32) * rng.uniform(0.5, 1.4)
    )
    tile = pattern(rng, kind, wall, wall * 0.8)
    reps = 5 if kind == 'bricks' else 3
    small = cv2.resize(np.tile(tile, (reps, reps, 1)), (size, size), interpolation=cv2.INTER_AREA)
    out = small * (0.85 + 0.2 * noise(rng, size, size, 3, 3)[..., None])
    storeys, bays = 4, int(rng.integers(3, 8))
    step_y, step_x = size / storeys, size / bays
    win_w, win_h = rng.uniform(0.3, 0.85) * step_x, rng.uniform(0.4, 0.75) * step_y
    frame = np.clip(colour(rng, 0.3, (0.05, 0.95)), 0, 1)
    light = style.light.ambient * 0.8 + style.light.sun * facing
    out = out * light
    lit_share = 0.45 if style.weather == 'dusk' else 0.04
    shop = style.place == 'urban' and rng.random() < 0.6
    balcony = rng.random() < 0.25
    for row in range(storeys):
        for bay in range(bays):
            cx, cy = (bay + 0.5) * step_x, (row + 0.5) * step_y
            w, h = win_w, win_h
            if shop and row == storeys - 1:
                w, h, cy = step_x * 0.9, step_y * 0.72, cy + step_y * 0.08
            a, b = (int(cx - w / 2), int(cy - h / 2)), (int(cx + w / 2), int(cy + h / 2))
            glass = style.horizon * rng.uniform(0.12, 0.5) + 0.02
            if rng.random() < lit_share:
                glass = np.array([0.95, 0.75, 0.4]) * rng.uniform(0.6, 1)
            elif shop and row == storeys - 1:
                glass = colour(rng, 0.8, (0.1, 0.8)) * 0.6
            cv2.rectangle(out, a, b, glass.tolist(), -1)
            if rng.random() < 0.4:
                cut = (b[0], int(a[1] + h * rng.uniform(0.15, 0.6)))
                cv2.rectangle(out, a, cut, (colour(rng, 0.3, (0.5, 0.9)) * light).tolist(), -1)
            cv2.rectangle(out, a, b, (frame * light).tolist(), 2)
            cv2.line(out, (int(cx), a[1]), (int(cx), b[1]), (frame * light).tolist(), 1)
            cv2.line(
                out, (a[0] - 1, b[1] + 2), (b[0] + 1, b[1] + 2), (wall * light * 1.25).tolist(), 2
            )
            if balcony and row < storeys - 1:
                cv2.rectangle(
                    out,
                    (a[0] - 4, b[1] - 8),
                    (b[0] + 4, b[1] + 3),
                    (frame * light * 0.8).tolist(),
                    -1,
                )
        if rng.random() < 0.5:
            y = int(row * step_y)
            out[y : y + 3] = wall * light * 1.2
    if shop:
        y = int((storeys - 1) * step_y)
        out[y : y + 11] = colour(rng, 0.9, (0.2, 0.8)) * light
    return to_bytes(out)


def barrier(rng: Generator, style: SceneStyle) -> tuple[np.ndarray, np.ndarray, int, float]:
    """
    Fence, wall, hedge or guard rail along the road.

    Returns:
        uint8 (64, 256, 3) premultiplied RGB of 4 m, its transparency uint8 (64, 256), class id and
        height in metres.

    """
    light = style.light.ambient * 0.85 + style.light.sun * 0.35
    kind = rng.choice(['hedge', 'wall', 'bars', 'rail', 'boards'])
    clear = np.zeros((64, 256), np.uint8)
    tone = colour(rng, 0.4, (0.1, 0.85))
    label, height = FENCE, rng.uniform(0.9, 1.7)
    if kind == 'hedge':
        green = np.array([0.16, 0.28, 0.08], np.float32) * rng.uniform(0.6, 1.4)
        image = np.tile(pattern(rng, 'grain', green, green * 0.3), (1, 3, 1))[:64, :256]
        clear[:6] = (noise(rng, 6, 256, 3, 2) > 0.5) * 255
        label = TREE
    elif kind == 'wall':
        image = np.tile(pattern(rng, str(rng.choice(['bricks', 'plain', 'grain']))), (1, 3, 1))[
            :64, :256
        ]
        label = BUILDING if rng.random() < 0.5 else FENCE
    elif kind == 'rail':
        image = np.broadcast_to(
            np.array([0.55, 0.56, 0.58], np.float32) * rng.uniform(0.7, 1.1), (64, 256, 3)
        ).copy()
        image[26:30] *= 0.6
        clear[:] = 255
        clear[8:42] = 0
        for x in range(0, 256, 128):
            clear[:, x + 60 : x + 68] = 0
        height = 0.85
    else:
        image = np.broadcast_to(tone, (64, 256, 3)).copy()
        clear[:] = 255
        gap, w = int(rng.integers(9, 18)), int(rng.integers(2, 5))
        for x in range(0, 256, gap):
            clear[:, x : x + (w if kind == 'bars' else gap - 2)] = 0
            image[:, x : x + 1] *= 0.7
        clear[6:10] = clear[50:54] = 0
    image = to_bytes(image * light)
    image[clear > 0] = 0
    return image, clear, label, height


__all__ = ['NONE', 'PERIOD', 'REACH', 'Surface', 'barrier', 'facade', 'panorama', 'to_bytes']
