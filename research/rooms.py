# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""
Drawn rooms and corridors in which everything is known: floors, walls, doors, pillars, ceilings.

Photographs of one building teach that building. Here the colours, tiles, reflections, lamps,
doors, windows, notices, pipes and skirtings of every frame are others, so that none of them is
evidence of an unknown object.
"""

from __future__ import annotations

import cv2
import numpy as np

from research.procedural import draw_texture

Array = np.ndarray
Rng = np.random.Generator
Pair = tuple[Array, Array]

GROUND, ROADSIDE, STRUCTURE, CEILING = 0, 4, 5, 6
"""Classes of robot7 that occur."""

METRE = 60
"""Pixels of a metre in the textures of surfaces."""


def draw_room(rng: Rng, height: int = 480, width: int = 640) -> Pair:
    """
    Draw a frame of an empty corridor, hall or room.

    Args:
        rng: random numbers.
        height: of the frame in pixels.
        width: likewise.

    Returns:
        image uint8 (H, W, 3) RGB and label uint8 (H, W) in robot7.

    """
    half = rng.uniform(0.8, 4.0)  # metres from the camera to either wall
    left, right = half * rng.uniform(0.4, 1.6), half * rng.uniform(0.4, 1.6)
    eye, top = rng.uniform(0.2, 1.6), rng.uniform(2.3, 4.5)
    far = float(np.exp(rng.uniform(np.log(3), np.log(40))))
    focal = width * rng.uniform(0.5, 1.0)
    yaw, pitch, roll = rng.normal(0, 0.25), rng.normal(0.03, 0.08), rng.normal(0, 0.02)
    camera = _Camera(width, height, focal, yaw, pitch, roll)
    light = _Light(rng, far)
    image = np.zeros((height, width, 3), np.float32)
    label = np.full((height, width), STRUCTURE, np.uint8)
    near = 0.3
    floor_skin = _floor(rng, left + right, far)
    ceiling_skin = _ceiling(rng, left + right, far)
    wall = _base(rng)
    corners = {
        'floor': ((-left, eye), (right, eye)),
        'ceiling': ((-left, eye - top), (right, eye - top)),
    }
    for name, skin, value in (
        ('floor', floor_skin, GROUND), ('ceiling', ceiling_skin, CEILING)
    ):  # fmt: skip
        (x0, y), (x1, _) = corners[name]
        quad = [(x0, y, near), (x1, y, near), (x1, y, far), (x0, y, far)]
        camera.paint(image, label, light(skin), quad, value)
    for x in (-left, right):
        skin, classes = _wall(rng, wall, far, top)
        quad = [(x, eye - top, near), (x, eye - top, far), (x, eye, far), (x, eye, near)]
        camera.paint(image, label, light(skin, across=True), quad, STRUCTURE, classes)
    skin, classes = _wall(rng, wall, left + right, top)
    quad = [(-left, eye - top, far), (right, eye - top, far), (right, eye, far), (-left, eye, far)]
    camera.paint(image, label, skin * light.end, quad, STRUCTURE, classes)
    for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.5 else 0):
        _pillar(rng, camera, image, label, (left, right, eye, top, far))
    if rng.random() < 0.6:
        _reflect(rng, image, label)
    return np.clip(image, 0, 255).astype(np.uint8), label


class _Camera:
    """A pinhole camera in the middle of a corridor, looking along z; y points down."""

    def __init__(
        self, width: int, height: int, focal: float, yaw: float, pitch: float, roll: float
    ) -> None:
        cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        cr, sr = np.cos(roll), np.sin(roll)
        turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
        tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        self.rotation = tilt @ nod @ turn
        self.centre, self.focal = np.array([width / 2, height / 2]), focal

    def paint(
        self,
        image: Array,
        label: Array,
        skin: Array,
        quad: list[tuple[float, float, float]],
        value: int,
        classes: Array | None = None,
    ) -> None:
        """Map a skin float32 (h, w, 3) on a quad, clockwise from the skin's upper left corner."""
        h, w = skin.shape[:2]
        # the homography of a plane: valid also where part of the quad is behind the camera
        origin, along, down = (np.array(quad[i]) for i in (0, 1, 3))
        plane = np.stack([(along - origin) / w, (down - origin) / h, origin], 1)
        intrinsic = np.array(
            [[self.focal, 0, self.centre[0]], [0, self.focal, self.centre[1]], [0, 0, 1]]
        )
        matrix = intrinsic @ self.rotation @ plane
        size = label.shape[1], label.shape[0]
        inverse = np.linalg.pinv(matrix)
        x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        u, v, q = (inverse[i, 0] * x + inverse[i, 1] * y + inverse[i, 2] for i in range(3))
        q = np.where(np.abs(q) < 1e-9, 1e-9, q)
        u, v = (u / q).astype(np.float32), (v / q).astype(np.float32)
        depth = matrix[2, 0] * u + matrix[2, 1] * v + matrix[2, 2]
        seen = (u >= 0) & (v >= 0) & (u < w) & (v < h) & (depth > 0.05)
        if not seen.any():
            return
        # far rows are taken from a smoothed skin, or they would sparkle
        colours = cv2.remap(skin, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        soft = cv2.remap(
            cv2.GaussianBlur(skin, (0, 0), 4), u, v, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        near = np.clip(4 / np.maximum(depth, 0.1) - 0.2, 0, 1)[..., None].astype(np.float32)
        image[seen] = (colours * near + soft * (1 - near))[seen]
        label[seen] = value
        if classes is not None:
            found = cv2.remap(classes, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            label[seen] = found[seen]


class _Light:
    """Light along a corridor: it falls off or rises towards the end, and comes in patches."""

    def __init__(self, rng: Rng, far: float) -> None:
        self.rng, self.far = rng, far
        self.start, self.end = rng.uniform(0.5, 1.1), rng.uniform(0.5, 1.3)
        self.lamps = rng.uniform(0, 0.3)
        self.spacing = rng.uniform(1.5, 5)

    def __call__(self, skin: Array, across: bool = False) -> Array:
        """Light a skin whose rows (or columns, where `across`) run along the corridor."""
        n = skin.shape[1] if across else skin.shape[0]
        z = np.linspace(0, self.far, n)
        gain = np.interp(z, [0, self.far], [self.start, self.end])
        gain = gain * (1 + self.lamps * np.cos(2 * np.pi * z / self.spacing))
        shape = (1, n, 1) if across else (n, 1, 1)
        return skin * gain.reshape(shape).astype(np.float32)


def _base(rng: Rng) -> Array:
    """Colour of a wall: mostly pale, sometimes anything."""
    if rng.random() < 0.8:
        grey = rng.uniform(110, 245)
        return np.clip(grey + rng.normal(0, 14, 3), 0, 255).astype(np.float32)
    return rng.integers(20, 250, 3).astype(np.float32)


def _plain(rng: Rng, height: int, width: int, colour: Array) -> Array:
    grain = rng.standard_normal((height // 12 + 2, width // 12 + 2)).astype(np.float32)
    grain = cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)
    return colour + (grain * np.float32(rng.uniform(0, 7)))[..., None]


def _size(metres_down: float, metres_across: float) -> tuple[int, int]:
    height, width = (max(16, min(int(m * METRE), 1200)) for m in (metres_down, metres_across))
    return height, width


def _tiles(rng: Rng, skin: Array, low: float = 0.2, high: float = 1.2) -> None:
    """Draw joints, and a little difference from tile to tile, in place."""
    step = [max(int(rng.uniform(low, high) * METRE), 6) for _ in range(2)]
    if rng.random() < 0.7:
        step[1] = step[0]
    rows, columns = skin.shape[0] // step[0] + 1, skin.shape[1] // step[1] + 1
    shade = rng.normal(0, rng.uniform(0, 9), (rows, columns))
    if rng.random() < 0.2:
        shade += rng.uniform(10, 60) * (np.indices((rows, columns)).sum(0) % 2)
    shade = np.kron(shade, np.ones(step))[: skin.shape[0], : skin.shape[1]]
    skin += shade[..., None].astype(np.float32)
    joint, thick = rng.uniform(-50, 30), int(rng.integers(1, 4))
    for i in range(thick):
        skin[i :: step[0]] += joint
        skin[:, i :: step[1]] += joint


def _floor(rng: Rng, wide: float, far: float) -> Array:
    height, width = _size(far, wide)
    colour = _base(rng) * np.float32(rng.uniform(0.4, 1))
    if rng.random() < 0.25:
        skin = draw_texture(rng, height, width)
        skin = colour + (skin - skin.mean()) * np.float32(rng.uniform(0.1, 0.5))
    else:
        skin = _plain(rng, height, width, colour)
    if rng.random() < 0.6:
        _tiles(rng, skin)
    if rng.random() < 0.3:  # a strip of another colour, a runner, a guide line
        x = int(rng.uniform(0, 0.8) * width)
        skin[:, x : x + max(int(rng.uniform(0.03, 0.4) * width), 3)] += rng.normal(0, 50, 3)
    for _ in range(int(rng.integers(0, 4))):  # stains and patches of light
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.uniform(4, 60)), int(rng.uniform(4, 90))
        spot = np.zeros((height, width), np.float32)
        cv2.ellipse(spot, centre, axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
        spot = cv2.GaussianBlur(spot, (0, 0), rng.uniform(1, 9))
        skin += spot[..., None] * np.float32(rng.normal(0, 35))
    return skin.astype(np.float32)


def _ceiling(rng: Rng, wide: float, far: float) -> Array:
    height, width = _size(far, wide)
    colour = _base(rng) * np.float32(rng.uniform(0.6, 1.05))
    skin = _plain(rng, height, width, colour)
    if rng.random() < 0.5:
        _tiles(rng, skin, 0.5, 1.2)
    step = int(rng.uniform(1, 4) * METRE)
    long, broad = int(rng.uniform(0.1, 1.4) * METRE), int(rng.uniform(0.1, 0.7) * METRE)
    for x in np.linspace(0.2, 0.8, int(rng.integers(1, 4))) * width:
        for y in range(0, height, step):
            skin[y : y + long, int(x) : int(x) + broad] = rng.uniform(200, 330)
    for _ in range(int(rng.integers(0, 3))):  # ducts
        x = int(rng.uniform(0, 0.9) * width)
        skin[:, x : x + max(width // 15, 2)] += rng.normal(0, 40, 3)
    return skin.astype(np.float32)


def _wall(rng: Rng, base: Array, long: float, top: float) -> tuple[Array, Array]:
    """Draw a wall with its doors, windows, notices, rails: skin and classes (h, w)."""
    height, width = _size(top, long)
    classes = np.full((height, width), STRUCTURE, np.uint8)
    skin = _plain(rng, height, width, base * np.float32(rng.uniform(0.8, 1.1)))
    draw = rng.random()
    if draw < 0.15:
        _tiles(rng, skin, 0.1, 0.6)
    elif draw < 0.35:  # the lower part of another colour
        low = int(height * rng.uniform(0.5, 0.75))
        skin[low:] = _plain(rng, height - low, width, _base(rng))
    elif draw < 0.5:
        texture = draw_texture(rng, height, width)
        skin += (texture - texture.mean()) * np.float32(rng.uniform(0.05, 0.3))
    if rng.random() < 0.6:  # skirting
        skin[-max(int(0.1 * METRE), 2) :] = _base(rng) * np.float32(rng.uniform(0.3, 1))
    if rng.random() < 0.7:
        _openings(rng, skin)
    if rng.random() < 0.15:  # a railing or a rail
        for y in rng.uniform(0.55, 0.75, int(rng.integers(1, 3))) * height:
            thick = max(int(0.05 * METRE), 2)
            skin[int(y) : int(y) + thick] = _base(rng) * 0.6
            classes[int(y) : int(y) + thick] = ROADSIDE
    return skin.astype(np.float32), classes


def _openings(rng: Rng, skin: Array) -> None:
    """Doors, windows, posters, sockets and vents along a wall, in place."""
    height, width = skin.shape[:2]
    x = int(rng.uniform(0.1, 1.5) * METRE)
    door, frame = _base(rng), _base(rng) * np.float32(0.8)
    while x < width - METRE // 2:
        kind, wide = rng.random(), int(rng.uniform(0.4, 2.0) * METRE)
        if kind < 0.45:
            wide = int(rng.uniform(0.8, 1.8) * METRE)
            y, foot = height - int(rng.uniform(2.0, 2.3) * METRE), height
            colour = door
        elif kind < 0.7:
            y, foot = int(height * rng.uniform(0.05, 0.3)), int(height * rng.uniform(0.55, 0.95))
            colour = rng.uniform(30, 300) + rng.normal(0, 15, 3)
        else:
            y = int(height * rng.uniform(0.2, 0.6))
            foot, colour = y + int(wide * rng.uniform(0.4, 1.4)), _base(rng)
        y, foot = max(y, 0), min(foot, height)
        place = skin[y:foot, x : x + wide]
        if place.shape[0] > 12 and place.shape[1] > 12:
            place[...] = frame
            inner = place[3:, 3:-3] if kind < 0.45 else place[3:-3, 3:-3]
            inner[...] = _plain(
                rng, inner.shape[0], inner.shape[1], np.asarray(colour, np.float32)
            )
            panes = int(rng.integers(1, 5))
            for i in range(1, panes):
                column = i * inner.shape[1] // panes
                inner[:, column : column + 2] = frame
            if kind < 0.45 and rng.random() < 0.6:  # a handle, and perhaps a pane
                inner[inner.shape[0] // 2, 2:7] = rng.uniform(0, 200)
                if rng.random() < 0.4:
                    a, b = inner.shape[0] // 6, inner.shape[1] // 4
                    inner[a : 3 * a, b:-b] = rng.uniform(20, 260)
            if kind >= 0.7 and rng.random() < 0.6:  # lines of print
                inner[4:-4:5, 4:-4] *= np.float32(rng.uniform(0.3, 0.9))
        x += wide + int(rng.uniform(0.2, 3.0) * METRE)


def _pillar(
    rng: Rng,
    camera: _Camera,
    image: Array,
    label: Array,
    room: tuple[float, float, float, float, float],
) -> None:
    """A square pillar that stands in the room or at its side."""
    left, right, eye, top, far = room
    z, side = rng.uniform(1.5, min(far, 12)), rng.uniform(0.2, 0.8)
    x = rng.uniform(-left, right - side)
    height, width = _size(top, side)
    skin = _plain(rng, height, width, _base(rng))
    if rng.random() < 0.3:
        texture = draw_texture(rng, height, width)
        skin += (texture - texture.mean()) * np.float32(0.4)
    front = [(x, eye - top, z), (x + side, eye - top, z), (x + side, eye, z), (x, eye, z)]
    flank_x = x + side if x + side < 0 else x
    flank = [
        (flank_x, eye - top, z), (flank_x, eye - top, z + side),
        (flank_x, eye, z + side), (flank_x, eye, z),
    ]  # fmt: skip
    light = np.float32(rng.uniform(0.5, 1))
    camera.paint(image, label, skin * np.float32(rng.uniform(0.5, 1)), flank, STRUCTURE)
    camera.paint(image, label, skin * light, front, STRUCTURE)


def _reflect(rng: Rng, image: Array, label: Array) -> None:
    """A polished floor shows what is above it, blurred, in place."""
    floor = label == GROUND
    rows = np.flatnonzero(floor.any(1))
    if len(rows) < 20:
        return
    line = int(rows[0])
    depth = min(image.shape[0] - line, line)
    if depth < 10:
        return
    mirror = image[line - depth : line][::-1]
    mirror = cv2.GaussianBlur(mirror, (0, 0), rng.uniform(2, 8))
    strength = np.float32(rng.uniform(0.05, 0.45)) * floor[line : line + depth, :, None]
    place = image[line : line + depth]
    place[...] = place * (1 - strength) + mirror * strength
