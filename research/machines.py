# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Unknown things put together from parts: machines, cabinets, frames, poles with panels, mixtures.

What stands unexpectedly on a way is often a machine or a box. Cut-outs of animals and food do not
teach that, and known vehicles teach the opposite: that what has wheels and windows is known. Faces
are painted or covered with pieces of photographs, parts of known vehicles among them.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from research.procedural import draw_texture

Array = np.ndarray
Rng = np.random.Generator

PAINTS = (
    (235, 190, 20), (220, 110, 20), (190, 25, 25), (30, 110, 50), (30, 70, 150), (230, 230, 225),
    (60, 62, 66), (120, 125, 120), (150, 90, 50),
)  # fmt: skip
"""RGB of paints that machines and street furniture have."""


def draw_thing(rng: Rng, photographs: Sequence[Array] = ()) -> Array:
    """
    Draw a thing of many parts, 150..420 pixels a side.

    Args:
        rng: random numbers.
        photographs: cut-outs uint8 (h, w, 4) RGBA whose insides cover some of the faces.

    Returns:
        uint8 (h, w, 4) RGBA.

    """
    height, width = (int(v) for v in rng.integers(150, 420, 2))
    canvas = Canvas(rng, height, width, photographs)
    kinds = (_machine, _machine, _cabinet, _cabinet, _frame, _panel_on_pole, _stack)
    kinds[int(rng.integers(len(kinds)))](canvas)
    return canvas.rgba()


def mix(rng: Rng, cutouts: Sequence[Array]) -> Array:
    """
    Put pieces of two to four cut-outs together so that they make one thing that nobody knows.

    Args:
        rng: random numbers.
        cutouts: uint8 (h, w, 4) RGBA, things of any kind.

    Returns:
        uint8 (h, w, 4) RGBA.

    """
    side = int(rng.integers(140, 280))
    result = np.zeros((side, side, 4), np.uint8)
    for number in range(int(rng.integers(2, 5))):
        piece = cutouts[int(rng.integers(len(cutouts)))]
        h, w = piece.shape[:2]
        if rng.random() < 0.6:  # a part, not all of it
            y, x = int(h * rng.uniform(0, 0.5)), int(w * rng.uniform(0, 0.5))
            piece = piece[y : y + max(h // 2, 4), x : x + max(w // 2, 4)]
        new = [max(8, int(side * rng.uniform(0.35, 0.8))) for _ in range(2)]
        way = cv2.INTER_AREA if new[0] < w else cv2.INTER_LINEAR
        piece = cv2.resize(piece, new, interpolation=way)
        if rng.random() < 0.3:
            piece = np.ascontiguousarray(np.rot90(piece, int(rng.integers(1, 4))))
        h, w = piece.shape[:2]
        # the pieces overlap in the middle, so that they hang together
        y = int(np.clip(side * rng.uniform(0.1, 0.9) - h / 2, 0, side - h)) if number else side - h
        x = int(np.clip(side * rng.uniform(0.25, 0.75) - w / 2, 0, side - w))
        place, alpha = result[y : y + h, x : x + w], piece[..., 3:] > 127
        place[...] = np.where(alpha, piece, place)
    return result


class Canvas:
    """A surface with a mask on which parts are put."""

    def __init__(
        self, rng: Rng, height: int, width: int, photographs: Sequence[Array] = ()
    ) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.rgb = np.zeros((height, width, 3), np.float32)
        self.mask = np.zeros((height, width), np.uint8)
        self.photographs = photographs
        count = int(rng.integers(1, 4))
        self.paints = [self._paint() for _ in range(count)]

    def _paint(self) -> Array:
        rng = self.rng
        if rng.random() < 0.6:
            paint = np.array(PAINTS[int(rng.integers(len(PAINTS)))], np.float32)
            return np.clip(paint * rng.uniform(0.6, 1.2) + rng.normal(0, 8, 3), 0, 255)
        return rng.integers(0, 256, 3).astype(np.float32)

    def skin(self, height: int, width: int) -> Array:
        """Paint, texture or a piece of a photograph: float32 (height, width, 3)."""
        rng, draw = self.rng, self.rng.random()
        if draw < 0.3 and len(self.photographs):
            source = self.photographs[int(rng.integers(len(self.photographs)))]
            h, w = source.shape[:2]
            inside = source[h // 5 : max(4 * h // 5, 2), w // 5 : max(4 * w // 5, 2)]
            if (inside[..., 3] > 127).mean() > 0.9:
                return cv2.resize(inside[..., :3], (width, height)).astype(np.float32)
        if draw < 0.5:
            return draw_texture(rng, max(height, 16), max(width, 16))[:height, :width]
        paint = self.paints[int(rng.integers(len(self.paints)))]
        shade = np.linspace(rng.uniform(0.85, 1.15), rng.uniform(0.6, 1.0), height)
        grain = rng.standard_normal((height // 6 + 2, width // 6 + 2)).astype(np.float32)
        grain = cv2.resize(grain, (width, height)) * np.float32(rng.uniform(0, 9))
        return paint * shade[:, None, None].astype(np.float32) + grain[..., None]

    def polygon(self, points: Sequence[tuple[float, float]], light: float = 1.0) -> None:
        """Cover a polygon of points (x, y) with a skin."""
        corners = np.array(points, np.float32).round().astype(np.int32)
        x0, y0 = np.clip(corners.min(0), 0, (self.width - 1, self.height - 1))
        x1, y1 = np.clip(corners.max(0) + 1, 1, (self.width, self.height))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return
        part = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(part, [corners - (x0, y0)], 255)
        box = slice(y0, y1), slice(x0, x1)
        skin = self.skin(int(y1 - y0), int(x1 - x0)) * np.float32(light)
        self.rgb[box] = np.where(part[..., None] > 0, skin, self.rgb[box])
        self.mask[box] |= part

    def box(self, x: float, y: float, w: float, h: float, light: float = 1.0) -> None:
        """Cover an upright box with a skin."""
        self.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], light)

    def solid(self, x: float, y: float, w: float, h: float) -> None:
        """Draw a box seen from a corner: front, side and top of different light."""
        rng = self.rng
        dx, dy = w * rng.uniform(0, 0.35), h * rng.uniform(0, 0.2)
        front = w - dx
        self.box(x, y + dy, front, h - dy)
        side = [(x + front, y + dy), (x + w, y), (x + w, y + h - dy), (x + front, y + h)]
        self.polygon(side, rng.uniform(0.4, 0.85))
        self.polygon([(x, y + dy), (x + dx, y), (x + w, y), (x + front, y + dy)], 1.15)

    def glass(self, x: float, y: float, w: float, h: float, bars: tuple[int, int]) -> None:
        """Draw a window of bars: dark or bright panes with a gradient."""
        rng = self.rng
        box = slice(max(int(y), 0), int(y + h)), slice(max(int(x), 0), int(x + w))
        place = self.rgb[box]
        if place.shape[0] < 3 or place.shape[1] < 3:
            return
        pane = np.array((50, 60, 70), np.float32) * rng.uniform(0.2, 3.2)
        ramp = np.linspace(1.3, 0.7, place.shape[0], dtype=np.float32)[:, None, None]
        place[...] = pane * ramp
        self.mask[box] = 255
        colour = [float(v) for v in self.paints[0]]
        rows, columns = bars
        thick = max(1, int(min(h, w) * 0.06))
        for i in range(1, rows):
            cv2.line(place, (0, int(i * h / rows)), (int(w), int(i * h / rows)), colour, thick)
        for i in range(1, columns):
            cv2.line(
                place, (int(i * w / columns), 0), (int(i * w / columns), int(h)), colour, thick
            )

    def wheel(self, x: float, y: float, radius: float) -> None:
        """Draw a wheel, or the rolls of a track."""
        centre, r = (int(x), int(y)), max(int(radius), 3)
        dark = [float(v) for v in self.rng.integers(10, 60) + np.zeros(3)]
        hub = [float(v) for v in self.paints[-1]]
        for colour, share in ((dark, 1.0), (hub, self.rng.uniform(0.3, 0.6)), (dark, 0.12)):
            cv2.circle(self.rgb, centre, max(int(r * share), 1), colour, -1, cv2.LINE_AA)
        cv2.circle(self.mask, centre, r, 255, -1)

    def arm(self, points: Sequence[tuple[float, float]], thick: float) -> None:
        """Draw a jointed arm along points (x, y)."""
        colour = [float(v) for v in self.paints[int(self.rng.integers(len(self.paints)))]]
        line = [np.array(points, np.float32).round().astype(np.int32)]
        cv2.polylines(self.rgb, line, False, colour, max(int(thick), 2), cv2.LINE_AA)
        cv2.polylines(self.mask, line, False, 255, max(int(thick), 2))

    def rgba(self) -> Array:
        """The drawing as uint8 (h, w, 4), cut to what was drawn."""
        rgb = np.clip(self.rgb, 0, 255).astype(np.uint8)
        rows, columns = (np.flatnonzero((self.mask > 0).any(axis)) for axis in (1, 0))
        if not len(rows):
            return np.dstack([rgb, np.full_like(self.mask, 255)])
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return np.ascontiguousarray(np.dstack([rgb, self.mask])[box])


def _machine(c: Canvas) -> None:
    """A body, perhaps a cabin, wheels or a track, an arm, a shovel, a grille."""
    rng, w, h = c.rng, c.width, c.height
    floor = h * 0.97
    radius = h * rng.uniform(0.08, 0.24)
    top = h * rng.uniform(0.3, 0.55)
    left, right = w * rng.uniform(0.02, 0.3), w * rng.uniform(0.65, 0.98)
    if rng.random() < 0.6:  # arm behind or in front of the body
        start = (rng.uniform(left, right), top + 0.1 * h)
        joints = [
            (rng.uniform(0, w), rng.uniform(0, 0.6 * h)) for _ in range(int(rng.integers(1, 3)))
        ]
        c.arm([start, *joints], w * rng.uniform(0.03, 0.09))
        x, y = joints[-1]
        size = w * rng.uniform(0.1, 0.25)
        c.polygon(
            [
                (x, y),
                (x + size, y + size * 0.2),
                (x + size * 0.7, y + size),
                (x - size * 0.2, y + size * 0.8),
            ]
        )
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(left, right - 0.2 * w), rng.uniform(top, floor - radius - 0.15 * h)
        c.solid(x, y, min(rng.uniform(0.25, 0.7) * w, right - x), floor - radius - y)
    c.solid(left, max(top, floor - radius - 0.35 * h), right - left, 0.35 * h)
    if rng.random() < 0.6:
        x, wide = rng.uniform(left, right - 0.3 * w), w * rng.uniform(0.2, 0.4)
        y = h * rng.uniform(0, 0.2)
        c.box(x, y, wide, top + 0.1 * h - y)
        c.glass(
            x + 0.1 * wide, y + 0.03 * h, 0.8 * wide, 0.7 * (top - y), (1, int(rng.integers(1, 3)))
        )
    if rng.random() < 0.5:  # grille
        x, y, size = rng.uniform(left, right - 0.2 * w), top + 0.15 * h, 0.18 * w
        c.glass(x, y, size, size, (int(rng.integers(4, 9)), 1))
    if rng.random() < 0.75:
        for x in np.linspace(left + radius, right - radius, int(rng.integers(1, 5))):
            c.wheel(x, floor - radius, radius * rng.uniform(0.6, 1))
    else:
        c.box(left, floor - radius, right - left, radius, 0.4)


def _cabinet(c: Canvas) -> None:
    """A booth, a cupboard, a vending machine: a box with doors, panes, slots and feet."""
    rng, w, h = c.rng, c.width, c.height
    if rng.random() < 0.6:
        w = min(w, int(h * rng.uniform(0.35, 0.9)))
    feet = h * (0.05 if rng.random() < 0.4 else 0)
    c.solid(0, 0, w, h - feet) if rng.random() < 0.6 else c.box(0, 0, w, h - feet)
    rows, columns = int(rng.integers(1, 7)), int(rng.integers(1, 5))
    draw = rng.random()
    if draw < 0.45:
        c.glass(
            0.12 * w,
            h * rng.uniform(0.05, 0.2),
            0.6 * w,
            h * rng.uniform(0.25, 0.7),
            (rows, columns),
        )
    elif draw < 0.75:
        for i in range(rows):  # doors or drawers
            c.box(
                0.06 * w,
                0.05 * h + i * 0.85 * h / rows,
                0.7 * w,
                0.78 * h / rows,
                rng.uniform(0.8, 1.2),
            )
    if rng.random() < 0.4:  # a sign or a strip
        c.box(0.1 * w, h * rng.uniform(0, 0.8), 0.6 * w, h * rng.uniform(0.04, 0.12))
    if feet:
        for x in (0.05, 0.8):
            c.box(x * w, h - feet - 1, 0.1 * w, feet, 0.5)


def _frame(c: Canvas) -> None:
    """A trolley, a rack, a barrier: bars with air between them, some of it filled."""
    rng, w, h = c.rng, c.width, c.height
    thick = max(3, w * rng.uniform(0.015, 0.05))
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(2, 6))
    slant = w * rng.uniform(0, 0.2)
    for i in range(rows + 1):
        y = 2 + i * (h - 4) / rows
        c.arm([(0, y), (w, y)], thick)
    for i in range(columns + 1):
        x = 2 + i * (w - 4) / columns
        c.arm([(min(x + slant, w), 0), (x, h)], thick)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0, 0.6) * w, rng.uniform(0, 0.6) * h
        c.solid(x, y, rng.uniform(0.2, 0.4) * w, rng.uniform(0.15, 0.4) * h)
    if rng.random() < 0.5:
        for x in (0.12, 0.85):
            c.wheel(x * w, h * 0.94, h * 0.05)


def _panel_on_pole(c: Canvas) -> None:
    """A board, a fan, a parasol: something that leans or stands on a foot."""
    rng, w, h = c.rng, c.width, c.height
    x, lean = w * rng.uniform(0.35, 0.65), w * rng.normal(0, 0.25)
    thick = w * rng.uniform(0.03, 0.12)
    foot = (np.clip(x + lean, 0, w), h - 3)
    c.arm([(x, h * 0.25), foot], thick)
    count = int(rng.integers(3, 9))
    angle = np.sort(rng.uniform(0, 2 * np.pi, count))
    size = min(w, h) * rng.uniform(0.25, 0.5)
    c.polygon([(x + size * np.cos(a), 0.3 * h + size * np.sin(a)) for a in angle])
    if rng.random() < 0.6:
        wide = w * rng.uniform(0.1, 0.35)
        c.solid(foot[0] - wide / 2, h * 0.85, wide, h * 0.15)


def _stack(c: Canvas) -> None:
    """Boxes, sacks or crates on each other."""
    rng, w, h = c.rng, c.width, c.height
    y = float(h)
    while y > 0.15 * h:
        high, wide = h * rng.uniform(0.15, 0.4), w * rng.uniform(0.4, 0.95)
        c.solid(rng.uniform(0, w - wide), max(y - high, 0), wide, high)
        y -= high * rng.uniform(0.75, 1)
